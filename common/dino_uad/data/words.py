"""The words by which people say, in folder and file names, what a file is; the only place that knows them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


SPLITS = {
    "train": _set("train training tr trn trainset traindata trainval"),
    "valid": _set("valid val validate validation dev"),
    "test": _set("test testing ts tst testset testdata holdout"),
}
SPLIT_OF = {word: split for split, names in SPLITS.items() for word in names}

NORMAL = _set(
    "good normal normals norm healthy control controls hc unaffected negative negatives neg nondemented uninfected ok "
    "gesund gesunde normale normales normaux normali sain saine sains sano sana sanos saudavel saudável sağlıklı "
    "sağlikli saglikli unauffällig"
)
"""Words of a normal image's folder. So is any of :data:`FINDINGS` after a word of :data:`NO`: ``no_tumor``."""
NO = _set("no non not without nicht kein keine ohne pas sans sin sem senza niet geen")
DISEASES = _set(
    "lesion lesions tumor tumors tumour tumours cancer malignant benign pneumonia tuberculosis glioma meningioma "
    "pituitary metastasis metastases haemorrhage hemorrhage bleeding stroke infarct infarction ischemia edema oedema "
    "effusion nodule nodules polyp polyps melanoma nevus carcinoma adenocarcinoma sarcoma cyst cysts stone stones "
    "fracture fractures cnv dme drusen dr glaucoma cataract infected parasitized demented covid covid19 malaria "
    "calc calcs hernia ulcer ulcers esophagitis mass masses calcification calcifications defect defects befund "
    "bacteria bacterial virus viral"
)
ANOMALOUS = DISEASES | _set(
    "ungood bad abnormal abnormals anomalous anomaly anomalies defective faulty diseased unhealthy pathological sick "
    "positive positives pos krank malade malades enfermo enferma hasta anormal anormale anormales"
)
"""Words of an anomalous image's folder or name that need no normal one beside them to be understood."""
PEOPLE = _set("patient patients case cases")
FINDINGS = ANOMALOUS | PEOPLE | _set("disease diseases finding findings pathology")

NORMAL_SHORT = _set("hc nc cn hv ctl ctrl no n neg ok")
ABBREVIATED = _set("yes y pos ad mci ms tb pt pat")
"""Short for normal, and for not: they may be anything, but beside each other before numbers they are classes."""
GENERAL = _set(
    "lesion lesions tumor tumors tumour tumours cancer disease diseases diseased finding findings pathology "
    "pathological defect defects defective anomaly anomalies anomalous abnormal demented infected parasitized dr befund"
)
"""Findings that include all others: ``non_tumor`` is normal, ``non_melanoma`` may be any other disease."""
DENIABLE = FINDINGS - {"covid", "covid19", "benign"}
"""Findings after a word of :data:`NO` that leave nothing: without benign is malignant, without covid pneumonia."""
TESTED = _set("negative negatives neg")
"""Results of tests: normal where what was tested, the words before, is a finding; not in ``HER2_negative``."""
SCALED = _set("norm norms")
"""Normal where they stand alone; in ``stain_norm`` values are normalised."""
MEASURED = _set("pressure tension dose quality resolution contrast light speed")
"""Words that a word before them calls normal or bad, and not the patient: ``normal_pressure_hydrocephalus``."""

DEGREES = _set("yes mild moderate severe proliferative")
"""Words of an anomalous folder beside a normal one, which say nothing alone."""

IMAGES = _set(
    "img imgs image images imaging input inputs scan scans original originals orig photo photos picture pictures"
)
MASKS = _set(
    "mask masks msk masque masques maske masken mascara mascaras maschera maschere label labels lbl labelmap labelmaps "
    "etiqueta etiquetas seg segs segm segms segment segmentation segmentations segmented segmentierung segmentacion "
    "segmentacao segmentazione dseg probseg pseg gt groundtruth groundtruths ground truth annotation annotations "
    "annotated annot annots anno annos ann roi rois manual manuals contour contours outline outlines delineation "
    "delineations gtv overlay overlays marking markings superpixels 1stho 2ndho aseg aparc wmparc parcellation "
    "parcellations prob probs probmap probability dist distmap"
)
DERIVED = _set(
    "heatmap heatmaps saliency gradcam prediction predictions predicted pred preds infer inferred inference thumb "
    "thumbs thumbnail thumbnails viz visualization visualizations visualisation visualisations"
)
"""Words of pictures that somebody, or a model, made of images; they are passed over."""
ORGANS = _set(
    "organ organs liver lung lungs brain skull kidney kidneys prostate heart spleen pancreas bladder breast aorta bone "
    "bones vert vertebra vertebrae hippocampus ventricle ventricles tissue tissues gm csf body skin fov foreground "
    "background disc disk cup vessel vessels aseg aparc wmparc parcellation parcellations"
)
QUALIFIERS = (
    FINDINGS
    | ORGANS
    | _set(
        "wmh wml infection consensus expert experts rater raters reader readers observer instance instances final "
        "corrected edited refined combined merged all whole core enhancing binary bin left right attribute v1 v2 v3 "
        "reg registered native and"
    )
)
"""Words that a mask's name may have beyond its image's: what is marked, and by whom."""
READERS = _set("manual annotator annotators rater raters reader readers observer observers expert experts")
"""People: a number after such a word is another opinion of the same thing, not another part of it."""
SIDES = _set("left right")
"""Words that tell the two halves of one annotation apart."""
SOLITARY = _set("wmh wml lesion lesions tumor tumour infarct stroke infection")
"""Whole names of masks: ``wmh.nii.gz`` beside ``FLAIR.nii.gz``."""

SEQUENCES = _set(
    "flair t1 t1w t1c t1ce t1n t1gd t2 t2w t2f t2star pd pdw adc dwi swi swan ct cta ctres mr mri mra pet pt suv us "
    "bold cbf 0000"
)
"""Ends of an image's name that say which sequence or channel it is."""
MODALITIES = SEQUENCES | _set("anat func dwi perf pet fmap meg eeg ct mri")
"""Folders of a case's sequences, as BIDS has them."""
CONTAINERS = _set(
    "fold folds part parts batch set sets year site center centre scanner session ses visit series study data dataset "
    "group size slices axial coronal sagittal px v"
)
"""Folders whose number is no patient's."""
GRADES = _set("grade stage level class score type category birads kl")
"""Folders whose number is a class, as ``grade0``."""
NO_NAME = IMAGES | SEQUENCES | _set("im slice slices frame frames file pic sample")
"""Words that count images, with a number, and name nobody."""

DESCRIPTIVE = _set(
    "id ids participant subject patient case image images img file files filename name path url index unnamed no "
    "number age sex gender ethnicity race handedness height weight bmi site center centre hospital institution scanner "
    "manufacturer model field strength date time study series session visit instance uid split fold set subset width "
    "depth size spacing pixel pixels x y z view position orientation projection ap pa laterality side slice slices "
    "modality sequence contrast kvp thickness quality education years occupation license source dataset"
)
"""Words of a table's columns that describe a person or a file and tell no class."""

COUNTED = MASKS | IMAGES | {word for word in NORMAL | ANOMALOUS if len(word) > 3}
"""Words that a number may follow without a space."""
KNOWN_BEFORE = FINDINGS | CONTAINERS | NO_NAME | QUALIFIERS | SPLIT_OF.keys() | NORMAL | NO
KNOWN_BEFORE |= _set("class label true sub subject pat pt id")
"""Words that may stand before a test's result and name no marker."""

BIDS_MASK = re.compile(r"_(?:desc|label)-[^_]+", re.IGNORECASE)
BIDS_ENTITY = re.compile(r"_(?:space|desc|label|seg|res|den|hemi)-[^_]+", re.IGNORECASE)
BIDS_PART = re.compile(r"_part-(?:mag|phase|real|imag)", re.IGNORECASE)
BIDS_TASK = re.compile(r"_(?:task|run|echo|inv)-[^_]+", re.IGNORECASE)
"""BIDS entities that tell images of one case apart: contrasts, and repetitions of one contrast."""
PART = re.compile(r"[ _.\-]+")
"""Between the parts of a name in which patients are looked for."""
SEPARATOR = re.compile(r"[\s_.\-+,;()\[\]&]+")
NUMBERED = re.compile(r"^([a-z]+?)(\d+)$")
GLUED = re.compile(
    "^(?:({no})({finding})|({what})({mask}))$".format(
        no="|".join(sorted(NO, key=len)),
        finding="|".join(FINDINGS),
        what="|".join(QUALIFIERS),
        mask="|".join([*(word for word in MASKS if len(word) > 2), "free", "negative", "positive"]),
    )
)
"""Two words in one: ``notumor``, ``tumorfree``, ``brainmask``."""
HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<!\dst|\dnd|\drd|\dth)(?<=[a-z])(?=[A-Z]{2,}$)")


CHANNEL = "0000"
"""nnU-Net's first channel, which is one of volumes: of pictures it may be the first patient or slice."""


def _at_end(said: frozenset[str]) -> re.Pattern[str]:
    return re.compile(rf"(?:(?:^|[ _.\-])(?:{'|'.join(sorted(said, key=len, reverse=True))}))+$", re.IGNORECASE)


SEQUENCE_END = {True: _at_end(SEQUENCES | IMAGES), False: _at_end((SEQUENCES | IMAGES) - {CHANNEL})}
"""A sequence at the end of a name, of volumes and of pictures."""


def words(name: str) -> tuple[str, ...]:
    """Lower-case words of a name: ``P1_lesionMask-2`` is ``p1 lesion mask 2``.

    A word that says what the file is, or its class, loses its number (``img0001`` is ``img 0001``); others (``p001``,
    ``t1``) do not.
    Accents count the same composed and apart, as macOS writes them.
    """
    result: list[str] = []
    for word in SEPARATOR.split(HUMP.sub("_", unicodedata.normalize("NFC", name))):
        part = word.lower().replace("\u0307", "")  # of the Turkish dotted I
        numbered = NUMBERED.match(part)
        if numbered and part not in MASKS | ANOMALOUS and numbered[1] in COUNTED:
            result += numbered.groups()
        elif glued := GLUED.match(part):
            result += filter(None, glued.groups())
        elif part:
            result.append(part)
    return tuple(result)


def split_word(folder: str) -> str | None:
    """The split that a folder's name tells, as do ``train``, ``labelsTr`` and ``ISIC_Training_Input``; else None."""
    said = set(words(folder))
    found = {SPLIT_OF[word] for word in said & SPLIT_OF.keys()}
    if "va" in said and said & (IMAGES | MASKS):  # imagesVa; elsewhere VA may be a place
        found.add("valid")
    return found.pop() if len(found) == 1 else None


def is_normal(folder: str) -> bool:
    """Whether a folder's name says that its images are normal."""
    return say_normal(words(folder))


def is_anomalous(folder: str) -> bool:
    """Whether a folder's name says by itself that its images are anomalous."""
    return say_anomalous(words(folder))


def say_normal(said: Sequence[str]) -> bool:
    """Whether words of a name say that an image is normal: ``normal``, ``no_tumor``, ``tumor_free``.

    Not ``non_melanoma``, which is another disease, ``HER2_negative``, ``normal_pressure``, ``stain_norm``.
    """
    pairs = list(pairwise(said))
    denied = {after for before, after in pairs if before in NO}
    if denied & NORMAL:
        return False
    absent = {after for before, after in pairs if before in NO and after in (GENERAL if before == "non" else DENIABLE)}
    normal = set(said) & NORMAL - {before for before, after in pairs if after in MEASURED}
    spoken = {word for word in said if not word.isdecimal()}
    if spoken - SCALED - SPLIT_OF.keys():
        normal -= SCALED
    if not _name_no_marker(said[: min((said.index(word) for word in TESTED if word in said), default=0)]):
        normal -= TESTED
    return bool(normal or absent) or (said[-1:] == ("free",) and bool(FINDINGS & set(said)))


def _name_no_marker(before: Sequence[str]) -> bool:
    """Whether words before a test's result are findings, containers or people, and no marker as ``HER2``."""
    letters = {word if word in KNOWN_BEFORE else word.rstrip("0123456789") for word in before}
    return {word for word in letters if len(word) > 1} <= KNOWN_BEFORE


def say_anomalous(said: Sequence[str]) -> bool:
    """Whether words of a name say by themselves that an image is anomalous."""
    spoken = set(said)
    measured = {before for before, after in pairwise(said) if after in MEASURED}
    return not say_normal(said) and bool((spoken & ANOMALOUS) - measured or (spoken & NO and spoken & NORMAL))
