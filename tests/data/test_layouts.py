"""What is made of the layouts that people have."""

import re
from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import dicom_files
from dino_uad.data.case import Case, Options
from dino_uad.data.cases import list_images, understand
from scans import write_dicom, write_itk, write_nifti

SPLITS = ("train", "valid", "test")


def understood(root: Path, *files: str, **options) -> list[Case]:
    return understand(layouts.write(root, files), Options(**options)).cases


def anomalous(cases: list[Case]) -> set[str]:
    return {case.image.relative for case in cases if case.anomalous}


def facts(cases: list[Case]) -> tuple:
    kinds = sum(not case.anomalous for case in cases), sum(case.anomalous for case in cases)
    return kinds, sum(bool(case.labels) for case in cases), len({case.group for case in cases})


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_every_layout_is_understood(tmp_path, name):
    layout = layouts.LAYOUTS[name]
    cases = understood(tmp_path, *layout.files, **dict(layout.options))
    assert facts(cases) == (layout.images, layout.masks, layout.patients)
    assert all(not case.anomalous or case.labels for case in cases) or not layout.masks
    for one in SPLITS:  # no patient lies in two splits
        for other in SPLITS[: SPLITS.index(one)]:
            groups = [{case.group for case in cases if case.split == split} for split in (one, other)]
            assert not groups[0] & groups[1]


def test_the_docs_show_the_table():
    page = Path(__file__).parents[2] / "common" / "docs" / "data_layouts.md"
    shown = page.read_text(encoding="utf-8").splitlines()
    assert [row for row in layouts.table() if row not in shown] == []


@pytest.mark.parametrize("name", layouts.REFUSED)
def test_a_layout_that_leaves_a_choice_asks(tmp_path, name):
    with pytest.raises(ValueError, match=f"(?s){layouts.REFUSED[name]}"):
        understood(tmp_path, *layouts.LAYOUTS[name].files)


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_inference_takes_every_image_and_no_mask(tmp_path, name):
    layout = layouts.LAYOUTS[name]
    images = list_images(layouts.write(tmp_path, layout.files), Options()).cases
    found = {case.image.relative for case in images}
    assert not [path for path in found if "mask" in path or "seg" in path or "label" in path or "GT" in path]
    assert len(found) >= sum(layout.images)


MASK_NAMES = (
    *("x{}_mask.png", "x{}-mask.png", "x{}.mask.png", "x{}_mask_1.png", "x{}_Mask.png", "x{}Mask.png", "mask_x{}.png"),
    *("x{}_GT.png", "x{}_annotation.png", "x{}_roi.png", "x{}_manual1.png", "x{}_segm.png", "x{}_segmentation.png"),
    *("x{}_lesion_mask.png", "x{}_mask_final.png", "seg_x{}.png", "x{}_maske.png", "x{}_masque.png", "x{}_label.tif"),
    *("x{}_mask.jpg", "masks/x{}.png", "labels/x{}_gt.png", "1st_manual/x{}_manual1.png", "ground_truth/x{}.png"),
    *("annotations/x{}.png", "x{}_zeichnung.png", "x{}_desenho.png", "drawn/x{}.png"),
)


@pytest.mark.parametrize("name", MASK_NAMES)
def test_masks_by_many_names_are_masks(tmp_path, name):
    """A few are told by their two values alone; a name that is understood but fits no image would be an error."""
    images = [f"{'scans/' if '/' in name else ''}x{k}.png" for k in range(1, 6)]
    masks = [f"{name.format(k)} = mask" for k in (1, 2)]
    cases = understood(tmp_path, *images, *masks)
    assert facts(cases)[:2] == ((3, 2), 2)
    assert anomalous(cases) == set(images[:2])


VOLUME_MASKS = (
    *("p{}_seg", "p{}.seg", "p{}-label", "p{}_dseg", "p{}_labelmap", "p{}-LesionSeg", "p{}_consensus_gt"),
    *("labels/p{}", "Segmentation/p{}"),
)


@pytest.mark.parametrize("name", VOLUME_MASKS)
def test_masks_of_volumes(tmp_path, name):
    files = [f"p{k}_flair.nii.gz" for k in range(1, 6)] + [f"{name.format(k)}.nii.gz = mask" for k in (1, 2)]
    assert anomalous(understood(tmp_path, *files)) == {"p1_flair.nii.gz", "p2_flair.nii.gz"}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("c{}/imaging.nii.gz", "c{}/segmentation.nii.gz"),
        ("c{}/FLAIR.nii.gz", "c{}/wmh.nii.gz"),
        ("img/img000{}.nii.gz", "label/label000{}.nii.gz"),
        ("ISIC_Training_Input/I_{}.jpg", "ISIC_Training_GroundTruth/I_{}_segmentation.png"),
        (
            "R001/sub-r{}/anat/sub-r{}_space-MNI_T1w.nii.gz",
            "R001/sub-r{}/anat/sub-r{}_space-MNI_label-L_desc-T1lesion_mask.nii.gz",
        ),
        ("rawdata/sub-s{}/sub-s{}_dwi.nii.gz", "derivatives/sub-s{}/sub-s{}_msk.nii.gz"),
        ("ct_scans/v_{}.nii.gz", "Infection_Mask/v_{}.nii.gz"),
    ],
)
def test_images_and_masks_with_names_of_their_own(tmp_path, image, mask):
    files = [name.format(k, k) for k in range(1, 5) for name in (image, f"{mask} = mask")]
    if image.endswith("jpg"):
        files += [f"ISIC_Training_Input/I_{k}.jpg" for k in range(5, 9)]
    cases = understood(tmp_path, *files)
    assert anomalous(cases) == {image.format(k, k) for k in range(1, 5)}


@pytest.mark.parametrize(
    "name",
    [
        "x{}_brain_mask.png",
        "x{}_lungmask.png",
        "Disc_Cup_Masks/x{}.png",
        "x{}_aparc+aseg.png",
        "predicted_masks/x{}.png",
    ],
)
def test_masks_of_organs_and_predictions_are_asked_for(tmp_path, name):
    files = [f"x{k}.png" for k in range(1, 6)] + [f"{name.format(k)} = mask" for k in (1, 2)]
    with pytest.raises(
        ValueError, match=r"2 of 2 masks are called after organs or predictions .*mask_pattern '\*(\w+)\*'; .*none"
    ) as error:
        understood(tmp_path, *files)
    marked = understood(tmp_path, mask_pattern=re.search(r"'(\*\w+\*)'", str(error.value))[1])
    assert anomalous(marked) == set(files[:2])
    assert not anomalous(understood(tmp_path, mask_pattern="none"))


def test_masks_that_mark_normal_images_are_asked_for(tmp_path):
    files = [
        f"{name}/{place}/{k}.png{what}"
        for name in ("Normal", "COVID")
        for k in range(4)
        for place, what in (("images", ""), ("masks", " = mask"))
    ]
    with pytest.raises(
        ValueError, match=r"4 images are normal by their folders.*Normal/images/0\.png.*mask_pattern none"
    ):
        understood(tmp_path, *files)
    assert len(anomalous(understood(tmp_path, mask_pattern="none"))) == 4


def test_accents_count_the_same_composed_and_apart(tmp_path):
    files = [f"caf\u00e9{k}.png" for k in range(4)] + ["cafe\u03010_mask.png = mask"]
    assert anomalous(understood(tmp_path, *files)) == {files[0]}


def test_one_bare_mask_of_several_volumes_is_that_of_the_chosen_one(tmp_path):
    files = [f"c{k}/{name}" for k in range(4) for name in ("PET.nii.gz", "anatomy.nii.gz", "SEG.nii.gz = mask")]
    assert len(anomalous(understood(tmp_path, *files, pattern="*PET*"))) == 4


def test_one_mask_that_fits_no_image_is_an_error_though_others_fit(tmp_path):
    files = [f"p{k}.png" for k in range(4)] + ["p0_mask.png = mask", "p1_mask.png = mask", "q9_mask.png = mask"]
    with pytest.raises(ValueError, match=r"1 of 3 masks \(such as q9_mask.png: the name says mask\) go with no image"):
        understood(tmp_path, *files)


@pytest.mark.parametrize(
    "name", ["x1_mask.gif", "masks/x1.gif", "masks/x1.npy", "x1_seg.mat", "labels/x1.txt", "Annotations/x1.xml"]
)
def test_masks_in_a_format_that_is_not_read_are_named(tmp_path, name):
    files = [f"x{k}.png" for k in range(4)]
    with pytest.raises(ValueError, match=rf"{name.split('.')[-1]}.*this format is not read.*Convert"):
        understood(tmp_path, *files, f"{name} = mask")


def test_images_that_look_like_masks_are_asked_for_and_may_be_declared(tmp_path):
    files = [f"a{k}.png = mask" for k in range(5)]
    with pytest.raises(ValueError, match=r"5 images have as few values as a mask .*image_pattern"):
        understood(tmp_path, *files)
    assert facts(understood(tmp_path, image_pattern="*"))[0] == (5, 0)


def test_a_patient_called_mask_is_asked_for_and_may_be_declared(tmp_path):
    files = [f"{patient}/slice_{k}.png" for patient in ("p1", "p2", "p3", "mask") for k in range(4)]
    with pytest.raises(ValueError, match=r"4 of 4 masks .*mask/slice_0.png.*image_pattern"):
        understood(tmp_path, *files)
    cases = understood(tmp_path, image_pattern="mask/*")
    assert len(cases) == 16 and not anomalous(cases)


CLASSES = {
    "chest": ("NORMAL", "PNEUMONIA"),
    "brain": ("notumor", "glioma", "pituitary"),
    "eye": ("NORMAL", "CNV", "DME", "DRUSEN"),
    "memory": ("NonDemented", "MildDemented"),
    "retina": ("No_DR", "Severe"),
    "answers": ("no", "yes"),
    "lung": ("Normal cases", "Malignant cases", "Bengin cases"),
    "controls": ("healthy_controls", "p2_epilepsy"),
    "denied": ("normal", "not_normal"),
    "German": ("Normal", "Nicht normal"),
    "Turkish": ("SAĞLIKLI", "HASTA"),
    "counted": ("0-No", "1-Yes"),
    "in one word": ("TumorNegative", "TumorPositive"),
}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "place", ["{c}/{k}.png", "{s}/{c}/{k}.png", "{c}/{s}/{k}.png", "wrapper/{s}/{c}/images/{k}.png"]
)
def test_a_normal_folder_makes_its_siblings_anomalous_in_every_split(tmp_path, name, place):
    _, *others = CLASSES[name]
    files = {place.format(s=s, c=c, k=k) for s in ("train", "test") for c in CLASSES[name] for k in range(3)}
    cases = understood(tmp_path, *sorted(files))
    assert anomalous(cases) == {file for file in files if any(f"/{other}/" in f"/{file}" for other in others)}
    assert not [case for case in cases if case.split == "train" and case.anomalous and case.trainable]


@pytest.mark.parametrize(
    "names",
    [
        ("0 absent", "1 present"),
        ("glioma", "meningioma"),
        ("BCC", "MEL", "NV"),
        ("0", "1", "2"),
        ("grade0", "grade1"),
        ("covid", "non-covid"),
    ],
)
def test_classes_without_a_normal_word_ask(tmp_path, names):
    files = [f"train/{name}/{k}.png" for name in names for k in range(3)]
    with pytest.raises(ValueError, match=rf"look like classes: {names[0].lower()} \(3\).*--train_data#normal"):
        understood(tmp_path, *files)
    cases = understood(tmp_path, normal=names[0])
    assert anomalous(cases) == {file for file in files if f"/{names[0]}/" not in file}
    with pytest.raises(ValueError, match="normal is 'benign'; no folder or image has that name"):
        understood(tmp_path, normal="benign")


def test_classes_in_file_names(tmp_path):
    files = [f"{name}_{k}.png" for name in ("normal", "benign") for k in range(4)]
    assert anomalous(understood(tmp_path, *files)) == set(files[4:])
    for file in files[:4]:
        (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=r"file names look like classes: benign \(4\)"):
        understood(tmp_path)


PATIENTS = {
    "folders": ([f"p{p:03d}/slice_{k}.png" for p in range(4) for k in range(p + 2)], [f"p{p:03d}" for p in range(4)]),
    "folders of sites": (
        [f"site_{s}/q{p}/{k}.png" for s in "ab" for p in "12" for k in "12"],
        [f"site_{s}/q{p}" for s in "ab" for p in "12"],
    ),
    "names": ([f"train/good/s{p}_{k}.png" for p in range(4) for k in range(3)], [f"s{p}" for p in range(4)]),
    "sessions": ([f"p{p}/ses-{s}/t1.nii.gz" for p in range(3) for s in (1, 2)], ["p0", "p1", "p2"]),
    "a class is none": ([f"normal_{k}.png" for k in range(4)], [f"normal_{k}" for k in range(4)]),
    "a counter is none": ([f"slice_{k}.png" for k in range(4)], [f"slice_{k}" for k in range(4)]),
    "slices in words": ([f"pat{p}_slice00{k}.png" for p in range(4) for k in "12"], [f"pat{p}" for p in range(4)]),
    "views": (
        [f"P_{p}_{s}_{v}.png" for p in range(4) for s in "LR" for v in ("CC", "MLO")],
        [f"P_{p}" for p in range(4)],
    ),
    "augmented": (
        [f"q{p}{a}.png" for p in range(4) for a in ("", "_flip", " - Copy", "_rot90")],
        [f"q{p}" for p in range(4)],
    ),
    "visits": ([f"sub-{p}_ses-{s}_T1w.nii.gz" for p in range(3) for s in "12"], [f"sub-{p}" for p in range(3)]),
    "dates": ([f"q{p}_200{y}0103.nii.gz" for p in range(3) for y in "12"], [f"q{p}" for p in range(3)]),
    "stripped": ([f"q{p}_T1{b}.nii.gz" for p in range(3) for b in ("", "_brain")], [f"q{p}" for p in range(3)]),
    "TCGA": ([f"TCGA_CS_{p}_20000902_{k}.png" for p in "123" for k in "12"], [f"TCGA_CS_{p}_20000902" for p in "123"]),
    "only dates": ([f"scan_200{y}0103.nii.gz" for y in "123"], [f"scan_200{y}0103" for y in "123"]),
    "a fold is none": (
        [f"fold{f}/a{p}_{k}.png" for f in "12" for p in "12" for k in "12"],
        [f"fold{f}/a{p}" for f in "12" for p in "12"],
    ),
}


@pytest.mark.parametrize("name", PATIENTS)
def test_patients(tmp_path, name):
    files, groups = PATIENTS[name]
    assert sorted({case.group for case in understood(tmp_path, *files)}) == groups


def test_slices_of_too_few_patients_are_told_of(tmp_path):
    layouts.write(tmp_path, [f"pat1_slice{k:03d}.png" for k in range(6)])
    assert "look like slices of 1 patient (pat1), too few" in understand(tmp_path, Options()).notes[0]


@pytest.mark.parametrize("name", ["{s}/good/q{p}_{k}.png", "{s}/good/q{p}/{k}.png"])
def test_patients_whom_folders_put_into_two_splits_are_told_of(tmp_path, name):
    layouts.write(tmp_path, [name.format(s=s, p=p, k=k) for s in ("train", "test") for p in range(4) for k in range(2)])
    assert "4 patients are in several splits by their folders" in " ".join(understand(tmp_path, Options()).notes)
    assert "in several" not in " ".join(understand(tmp_path, Options(group_pattern=r"(.*)")).notes)


def test_pictures_that_are_counted_alike_are_no_patients_in_two_splits(tmp_path):
    layouts.write(tmp_path, [f"{s}/good/rgb/{k:03d}.png" for s in ("train", "test") for k in range(4)])
    assert "in several" not in " ".join(understand(tmp_path, Options()).notes)


def test_a_group_pattern_sees_the_folders(tmp_path):
    files = [f"d{p % 2}/case{p}/IMG{k}.png" for p in range(4) for k in range(2)]
    assert {c.group for c in understood(tmp_path, *files, group_pattern=r"case(\d)/")} == set("0123")
    with pytest.raises(ValueError, match=r"does not match 'd0/case0/IMG0\.png'"):
        understood(tmp_path, group_pattern="absent")


def test_a_drawn_test_split_has_an_anomalous_patient_and_a_normal_one(tmp_path):
    files = [f"p{k}.nii.gz" for k in range(6)] + ["p0_seg.nii.gz = mask", "p1_seg.nii.gz = mask"]
    layouts.write(tmp_path, files)
    for seed in range(5):
        cases = understand(tmp_path, Options(seed=seed)).cases
        assert {case.anomalous for case in cases if case.split == "test"} == {True, False}
        assert {case.split for case in cases} == set(SPLITS)


def test_a_blank_mask_in_an_anomalous_folder_is_named(tmp_path):
    from dino_uad.data import datalist

    files = [f"{s}/good/{k}.png" for s in ("train", "valid") for k in range(3)]
    files += ["test/bad/img/a.png", "test/bad/img/b.png", "test/bad/label/a.png = mask", "test/bad/label/b.png = blank"]
    layouts.write(tmp_path, files)
    with pytest.raises(ValueError, match=r"label/b\.png: the mask is blank"):
        datalist(tmp_path, "test")


def test_names_that_say_normal_beside_names_that_say_nothing_ask(tmp_path):
    files = [f"{name}_{k}.png" for name in ("normal", "osteophyte") for k in range(4)]
    with pytest.raises(ValueError, match=r"file names look like classes: normal \(4\), others \(4\)"):
        understood(tmp_path, *files)
    assert anomalous(understood(tmp_path, normal="normal_*")) == set(files[4:])
    assert anomalous(understood(tmp_path, normal="*")) == set()


PARTS = {
    "BUSI": ("x{}_mask.png", "x{}_mask_1.png", "x{}_mask_2.png"),
    "lesions": ("x{}_lesion1.png", "x{}_lesion2.png"),
    "sides": ("masks/x{}_left.png", "masks/x{}_right.png"),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_one_annotation_are_joined(tmp_path, name):
    from dino_uad.data import datalist
    from dino_uad.transforms import LoadScand

    layouts.write(tmp_path, [f"x{k}.png" for k in range(5)])
    for place, part in enumerate(PARTS[name]):
        layouts.write(tmp_path, [f"{part.format(0)} = mask {5 * place}"])
    (item,) = (item for item in datalist(tmp_path, "test") if item["anomalous"])
    assert sorted(Path(path).name for path in item["label"]) == sorted(Path(p.format(0)).name for p in PARTS[name])
    label = LoadScand(["image", "label"])(item)["label"]
    assert int((label > 0).sum()) == 25 * len(PARTS[name])  # squares of 5 pixels that do not touch


DIFFERENT = {
    "CHASE": ("x{}_1stHO.png", "x{}_2ndHO.png"),
    "DRIVE": ("1st_manual/x{}_manual1.png", "2nd_manual/x{}_manual2.png"),
    "COVID-QU": ("lung masks/x{}.png", "infection masks/x{}.png"),
    "tissues": ("x{}_core_mask.png", "x{}_whole_mask.png"),
    "two readers who only count": ("x{}_mask1.png", "x{}_mask2.png"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_masks_that_say_different_things_are_listed_and_chosen(tmp_path, name):
    masks = [mask.format(k) for k in range(2) for mask in DIFFERENT[name]]
    layouts.write(tmp_path, [f"images/x{k}.png" for k in range(5)] + [f"{mask} = mask" for mask in masks])
    with pytest.raises(ValueError, match=r"several masks for images/x0\.png: .*mask_pattern '([^']*)', or") as error:
        understood(tmp_path)
    assert all(mask in str(error.value) for mask in masks[:2])
    one, both = re.findall(r"'([^']*\*[^']*)'", str(error.value))
    for pattern, count in ((one, 1), (both, 2)):
        cases = understood(tmp_path, mask_pattern=pattern)
        assert [len(case.labels) for case in cases] == [count, count, 0, 0, 0]


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_annotations_in_dicom_are_named_and_never_passed_over_in_silence(tmp_path, kind):
    for k in range(4):
        write_dicom(tmp_path / f"p{k}" / "ct", np.zeros((8, 8, 3), np.float32), uid=f"1.2.{k + 1}")
    dicom_files.write(tmp_path / "p1" / "note" / "IM0", dicom_files.dataset(None, "SR"))
    assert not anomalous(understood(tmp_path))
    dicom_files.write(tmp_path / "p1" / "marks" / "IM0", dicom_files.dataset(np.zeros((3, 8, 8), np.uint8), kind))
    with pytest.raises(ValueError, match=r"marks/IM0: DICOM annotation \(.*this format is not read.*mask_pattern none"):
        understood(tmp_path)
    passed = understand(tmp_path, Options(mask_pattern="none")).passed
    assert {role.reason for role in passed} == {
        "DICOM object without pixels (SR)",
        "masks that mask_pattern does not choose",
    }


def picture(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.mark.parametrize("kind", ["alpha", "palette"])
@pytest.mark.parametrize("name", ["x1_mask.png", "x1 drawn.png"])
def test_masks_without_colour_are_named_and_call_no_image_normal(tmp_path, kind, name):
    layouts.write(tmp_path, [f"x{k}.png" for k in range(4)])
    mark = np.pad(np.ones((5, 5), np.uint8), (4, layouts.SIDE - 9))
    if kind == "alpha":
        mask = Image.merge("LA", [Image.fromarray(0 * mark), Image.fromarray(255 * mark)])
    else:
        mask = Image.fromarray(mark).convert("P")
        mask.putpalette([0] * 768)
    mask.save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: the mask has no value above 0.*Export it again"):
        understood(tmp_path)


@pytest.mark.parametrize("name", ["x1 drawn.png", "m1.png"])
def test_what_looks_like_a_mask_of_another_size_is_asked_for(tmp_path, name):
    layouts.write(tmp_path, [f"x{k}.png" for k in range(4)])
    picture(tmp_path / name, 255 * np.pad(np.ones((4, 4)), 2))
    with pytest.raises(ValueError, match=rf"{name}: 2 values\), and fit no image by name and size"):
        understood(tmp_path)


@pytest.mark.parametrize("name", ["image{}-{}.png", "marked{1}/image{0}.png"])
def test_copies_that_readers_drew_on_are_asked_for(tmp_path, name):
    """As in RIGA, where image1-1 to image1-6 are image1 with the contours of six readers."""
    rng = np.random.default_rng(0)
    layouts.write(tmp_path, [name.format(0, k) for k in range(2)])  # makes the folders
    for k in range(4):
        values = rng.integers(0, 255, (64, 64, 3))
        picture(tmp_path / f"image{k}.png", values)
        for reader in range(2):
            values[20:40, 20 : 24 + reader] = 0, 0, 255
            picture(tmp_path / name.format(k, reader), values)
    with pytest.raises(ValueError, match=r"looks like .*image0.png with something drawn on it \(\d\d % of"):
        understood(tmp_path)
    assert len(understood(tmp_path, image_pattern="*", group_pattern=r"image\d")) == 12


def test_anomalies_drawn_on_normal_images_are_no_such_copies(tmp_path):
    """As people make test sets with synthetic lesions."""
    layouts.write(tmp_path, [f"{name}/{k}.png" for name in ("normal", "synthetic") for k in range(6)])
    for k in range(6):
        values = np.asarray(Image.open(tmp_path / f"normal/{k}.png")).copy()
        values[2:6, 2:6] = 255
        picture(tmp_path / f"synthetic/{k}.png", values)
    assert len(anomalous(understood(tmp_path))) == 6


@pytest.mark.parametrize("names", [("p{0}/a/x", "p{0}/b/x"), ("{0}.dcm", "{0}_x.dcm")])
def test_masks_in_dicom_images_are_known_by_their_values(tmp_path, names):
    for k in range(4):
        values = np.random.default_rng(k).integers(0, 4000, (32, 32)).astype("u2")
        marks = np.pad(np.ones((8, 8), "u2"), 12)
        for name, pixels in zip(names, (values, marks), strict=True):
            path = tmp_path / name.format(k)
            dicom_files.write(
                path, dicom_files.dataset(pixels, "DX", series=f"1.2.{k + 1}{len(name)}", PatientID=f"P{k}")
            )
    assert {case.image.relative for case in understood(tmp_path)} == {names[0].format(k) for k in range(4)}


CONTENT = ("png", "soft.png", "small.jpg", "colour.png", "six.png", "parcels.nii", "nrrd", "mha", "nii", "soft.nii")


@pytest.mark.parametrize("what", CONTENT)
def test_masks_are_known_by_their_values(tmp_path, what):
    """Without a word in the name: soft edges, JPEG, colours, several labels, uncompressed volumes."""
    kind, _, suffix = what.rpartition(".")
    volume = suffix in ("nrrd", "mha", "nii")
    rng = np.random.default_rng(0)
    labels = np.zeros((64, 64, 12) if volume else (64, 64), np.uint8)
    for k in range(1, 7 if kind == "six" else 2):
        labels[8 * k : 8 * k + 7, 20:40] = k * (1 if volume else 40)
    if kind == "parcels":
        labels = rng.integers(0, 90, (8, 8, 4)).repeat(8, 0).repeat(8, 1).repeat(3, 2).astype(np.uint8)
    soft = ndimage.gaussian_filter(labels.astype(np.float32), 0.7)
    if volume:
        save = write_nifti if suffix == "nii" else write_itk
        for k in range(4):
            save(tmp_path / f"x{k}.{suffix}", rng.normal(300, 50, labels.shape).astype(np.int16))
        save(tmp_path / f"x1 drawn.{suffix}", soft if kind == "soft" else labels)
    else:
        for k in range(4):
            Image.fromarray(rng.integers(20, 255, labels.shape).astype(np.uint8)).save(tmp_path / f"x{k}.png")
        values = {"soft": (soft * 6).astype(np.uint8), "small": (labels > 0) * np.uint8(255)}.get(kind, labels)
        if kind == "colour":
            values = values[..., None] * np.array([5, 0, 2], np.uint8)
        Image.fromarray(values).save(tmp_path / f"x1 drawn.{suffix}")
    assert [image.relative for image in (case.image for case in understood(tmp_path))] == [
        f"x{k}.{suffix if volume else 'png'}" for k in range(4)
    ]
