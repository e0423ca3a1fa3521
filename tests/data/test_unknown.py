"""What nothing calls normal is asked for where something may say that it is not."""

from pathlib import Path

import layouts
import pytest

from dino_uad.data.case import Options
from dino_uad.data.cases import list_images, understand

TABLES = {
    "CheXpert": (
        "train/patient0000{}/study1/view1_frontal.jpg",
        "train.csv = text Path,Sex,Age,Cardiomegaly|CheXpert/train/patient00001/study1/view1_frontal.jpg,F,68,1",
        r"train.csv names images \(columns Path, Sex, Age, Cardiomegaly\)",
    ),
    "VinDr": (
        "train/{}a9f.dicom/ = dicom",
        "train.csv = text image_id;class_name|1a9f;Aorta",
        "columns image_id",
    ),
    "BIDS": (
        "sub-0{0}/sub-0{0}_T1w.nii.gz",
        "participants.tsv = text participant_id\tgroup|sub-01\tMS",
        "participant_id",
    ),
    "numbers": ("{}.png", "y.csv = text id,label|1,0|2,1|3,0|4,1", "columns id, label"),
    "COCO": (
        "x{}.jpg",
        'a.json = text {{"images": [{{"file_name": "x1.jpg"}}], "annotations": []}}',
        "a.json names images",
    ),
    "labelme": ("x{}.jpg", 'x{}.json = text {{"shapes": []}}', "x1.json goes with x1.jpg"),
    "YOLO": ("x{}.jpg", "x{}.txt = text 0 0.5 0.5 0.1 0.1", "x1.txt goes with x1.jpg"),
    "a report": ("x{}.jpg", "reports/x{}.txt = text Nodule in the left lung.", "reports/x1.txt goes with x1.jpg"),
    "RSNA": ("s/ID_0001{}eaf.png", "y.csv = text ID,Label|ID_00011eaf_any,1", "y.csv names images"),
    "MIMIC": ("p10/p1000003{}/s5/a.jpg", "y.csv = text subject_id,Edema|10000031,1", "y.csv names images"),
    "INbreast": ("{0}058690_6c_CC.png", "y.csv = text File Name;ACR|1058690;4", "y.csv names images"),
    "CQ500": ("CQ500CT{0} CQ500CT{0}/x.nii.gz", "r.csv = text name,ICH|CQ500-CT-1,1", "r.csv names images"),
    "LIDC": ("LIDC-000{0}/s/ = dicom", "LIDC-000{0}/s/06{0}.xml = text <a/>", "061.xml goes with LIDC-0001/s"),
    "DDTI": ("{}_1.jpg", "{}.xml = text <a/>", "1.xml goes with 1_1.jpg"),
    "studies": ("p1/s504{}/a.jpg", "r/s504{}.txt = text Nodule left", "s5041.txt goes with p1/s5041/a.jpg"),
    "closed": ("x{}.jpg", "labels.pkl", "labels.pkl is called as labels are"),
    "spaces": ("scan {} b.png", "y.csv = text filename,label|scan 1 b.png,1", "y.csv names images"),
    "commas": ("Doe, J {}.png", 'y.csv = text f,label|"Doe, J 1.png",1', "y.csv names images"),
    "paths of Windows": ("s/scan {}.png", "y.csv = text f,label|C:\\data\\s\\scan 1.png,1", "y.csv names images"),
    "leading zeros": ("000{}.png", "y.csv = text id,label|1,0|2,1|3,0|4,1", "y.csv names images"),
    "numbers alone": ("im{}.png", "y.csv = text id,label|1,0|2,1|3,0|4,1", "y.csv names images"),
    "numbers of folders": ("case_000{}/t1.nii.gz", "y.csv = text id,label|1,0|2,1|3,0|4,1", "y.csv names images"),
    "separators": ("pat-{}.png", "y.csv = text id,label|pat_1,0", "y.csv names images"),
    "a mapping": ("x{}a.png", 'labels.json = text {{"x1a.png": "melanoma"}}', "labels.json names images"),
    "numbers in a mapping": ("x{}a.png", 'gt.json = text {{"x1a": 0, "x2a": 1}}', "gt.json names images"),
    "lines of JSON": ("x{}a.png", 'd.jsonl = text {{"file": "x1a.png", "malignant": 1}}', "d.jsonl names images"),
    "a side file": ("x{}a.nii.gz", 'x{}a.json = text {{"group": "AD"}}', "x1a.json goes with x1a.nii.gz"),
    "a list of the ill": ("x{}a.png", "abnormal.txt = text x1a.png", "abnormal.txt names images"),
    "a table of the ill": ("x{}a.png", "tuberculosis_cases.csv = text id|x1a", r"tuberculosis_cases\.csv names images"),
    "a list in a folder": ("x{}a.png", "lists/tumor/train.txt = text x1a.png", "lists/tumor/train.txt names images"),
    "case and control": ("x{}a.png", "l.csv = text image,case|x1a.png,0|x2a.png,1|x3a.png,1|x4a.png,0", "image, case"),
    "more cells than heads": ("x{}a.png", "l.csv = text id|x1a.png,0|x2a.png,1", "l.csv names images"),
    "no heads": ("x{}a.png", "l.csv = text x1a.png,0|x2a.png,1", "l.csv names images"),
    "YAML": ("x{}a.png", "labels.yaml = text x1a.png: tumor", "labels.yaml names images"),
    "a list with labels": ("x{}a.png", "labels.lst = text x1a.png 1", "labels.lst names images"),
    "statistics": ("x{}a.png", "diagnosis.sav", "diagnosis.sav is called as labels are"),
    "a page": ("x{}a.png", "test_labels.html", "test_labels.html is called as labels are"),
    "an archive": ("x{}.png", "masks.tar.xz", "masks.tar.xz is called as labels are"),
    "a part of an archive": ("x{}.png", "lesion_masks.zip.001", "lesion_masks.zip.001 is called as labels are"),
    "MATLAB": ("x{}.png", "x{}.mat", "x1.mat has the name of x1.png"),
}


def written(root: Path, *names: str) -> Path:
    files = dict.fromkeys(name.format(k) for k in range(1, 5) for name in names)
    return layouts.write(root, list(files))


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_may_tell_classes_are_asked_for(tmp_path, name):
    image, table, message = TABLES[name]
    written(tmp_path, image, table)
    with pytest.raises(ValueError, match=message + r".*is not read.*--train_data#normal '\*'"):
        understand(tmp_path, Options())
    cases = understand(tmp_path, Options(normal="*")).cases
    assert [case.anomalous for case in cases] == [False] * 4
    assert len(list_images(tmp_path, Options()).cases) == 4  # inference takes them as they are


@pytest.mark.parametrize(
    ("image", "mask", "table"),
    [
        ("q{0}x.png", "masks/q{0}x.png = mask", "y.csv = text image,diagnosis|q3x.png,tumor"),
        (
            "sub-{0}/sub-{0}_FLAIR.nii.gz",
            "sub-{0}/sub-{0}_FLAIR_mask.nii.gz = mask",
            "p.tsv = text id\tgroup|sub-3\tMS",
        ),
    ],
)
def test_images_without_a_mask_that_a_table_may_call_ill_are_asked_for(tmp_path, image, mask, table):
    layouts.write(tmp_path, [image.format(k) for k in range(1, 8)] + [mask.format(k) for k in (1, 2)] + [table])
    with pytest.raises(ValueError, match=r"may tell which images are normal of the 5 without a mask.*normal '\*'"):
        understand(tmp_path, Options())
    cases = understand(tmp_path, Options(normal="*")).cases  # what is marked stays anomalous
    assert [case.anomalous for case in cases] == [True, True] + 5 * [False]


HARMLESS = {
    "a list of names": ("img{}.png", "train_list.txt = text img1.png|img2.png"),
    "checksums": ("img{}.png", f"md5.txt = text {'a1' * 16}  img1.png|{'b2' * 16}  img2.png"),
    "people": ("sub-0{0}/sub-0{0}_T1w.nii.gz", "participants.tsv = text participant_id\tage\tsex|sub-01\t3\tF"),
    "side files": ("sub-0{0}/sub-0{0}_T1w.nii.gz", 'sub-0{0}/sub-0{0}_T1w.json = text {{"Manufacturer": "x"}}'),
    "a note": ("img{}.png", "README.txt = text Images of normal people"),
    "other images": ("img{}.png", "other.csv = text id,label|q1,0"),
    "numbers of something": ("{}.png", "age.csv = text visitor,mood|1,0"),
    "a list with spaces": ("scan {}.png", "train.txt = text scan 1.png|scan 2.png"),
    "a table of names": ("x{}a.png", "files.csv = text x1a.png|x2a.png"),
    "one case for each": ("x{}a.png", "l.csv = text image,case|x1a.png,1|x2a.png,2|x3a.png,3|x4a.png,4"),
    "a log of a training": ("{}.png", "log.csv = text epoch,loss|1,0.5|2,0.4|3,0.3|4,0.2"),
    "checksums in JSON": ("x{}a.png", f'md5.json = text {{{{"x1a.png": "{"a1" * 16}"}}}}'),
    "sizes in JSON": ("x{}a.png", 'info.json = text {{"x1a.png": {{"width": 4}}}}'),
    "a manual and a licence": ("x{}a.png", "manual.pdf"),
    "notes": ("x{}a.png", "README"),
    "a log": ("x{}a.png", "labels.log = text x1a.png tumor"),
    "a program": ("x{}a.png", "labels.py = text x1a.png"),
    "an affine": ("x{}.nii.gz", "x{}.mat"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_tells_no_class_does_not_stop_anybody(tmp_path, name):
    assert len(understand(written(tmp_path, *HARMLESS[name]), Options()).cases) == 4


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("irm_\u00e9{}.png", "fichier;diagnostic\nirm_\u00e91.png;1".encode("cp1252")),
        ("irm_e\u0301{}.png", "fichier;diagnostic\nirm_\u00e91.png;1".encode()),
        ("irm_{}.png", "fichier;diagnostic\nirm_1.png;1".encode("utf-16")),
    ],
)
def test_tables_in_other_alphabets_are_read(tmp_path, name, encoded):
    written(tmp_path, name)
    (tmp_path / "y.csv").write_bytes(encoded)
    with pytest.raises(ValueError, match=r"y\.csv names images \(columns fichier, diagnostic\)"):
        understand(tmp_path, Options())


def test_a_table_behind_many_others_is_found(tmp_path):
    written(tmp_path, "x{}a.png", "zlabels.csv = text f,label|x1a.png,1")
    layouts.write(tmp_path, [f"meta/m{k:03d}.csv = text a,b|1,2" for k in range(60)])
    with pytest.raises(ValueError, match=r"zlabels\.csv names images"):
        understand(tmp_path, Options())


def test_own_tables_tell_nothing(tmp_path):
    from dino_uad.worklist import tables

    columns = (tables.SCAN_COLUMNS, tables.SLICE_COLUMNS, tables.FINDING_COLUMNS)
    own = [f"eval/t{n}.csv = text {','.join(names)}|img1.png,scored" for n, names in enumerate(columns)]
    json = (
        'eval/scores.json = text {{"versions": {{"dino_uad": "1"}}, "scans": [{{"file": "img1.png", "findings": []}}]}}'
    )
    assert len(understand(written(tmp_path, "img{}.png", json, *own), Options()).cases) == 4


def test_tables_beside_class_folders_are_not_asked_for(tmp_path):
    written(tmp_path, "normal/x{}.png", "sick/y{}.png", "labels.csv = text id,label|x1,0|y1,1")
    assert sum(case.anomalous for case in understand(tmp_path, Options()).cases) == 4


def test_images_without_a_class_beside_images_with_one_are_asked_for(tmp_path):
    written(tmp_path, "p{}/normal/a.png", "q{}/later/b.png")
    with pytest.raises(ValueError, match=r"nothing says whether 4 of 8 images are normal \(such as q1/later/b\.png\)"):
        understand(tmp_path, Options())
    with pytest.raises(ValueError, match=r"as in --train_data#normal 'normal,later'"):
        understand(tmp_path, Options())
    cases = understand(tmp_path, Options(normal="normal,later")).cases
    assert not any(case.anomalous for case in cases)


def test_no_pattern_is_proposed_that_would_call_ill_images_normal(tmp_path):
    written(tmp_path, "{}.png", "tumor/{}.png")
    with pytest.raises(ValueError, match=r"nothing says .* Put them into a folder called normal, or move the images"):
        understand(tmp_path, Options())


def test_positive_and_negative_studies(tmp_path):
    written(
        tmp_path,
        "train/p{}/study1_negative/1.png",
        "valid/p1{}/study1_positive/1.png",
        "valid/p2{}/study1_negative/1.png",
    )
    cases = understand(tmp_path, Options()).cases
    assert {case.image.folders[2] for case in cases if case.anomalous} == {"study1_positive"}


@pytest.mark.parametrize("other", ["p{0}_PT.nii.gz", "p{0}_recon.nii.gz"])
def test_a_volume_without_mask_beside_one_of_its_case_with_a_mask_is_not_normal(tmp_path, other):
    written(tmp_path, "p{0}.nii.gz", "p{0}_seg.nii.gz = mask", other)
    with pytest.raises(ValueError, match=r"--train_data#pattern"):
        understand(tmp_path, Options())


def test_pictures_made_of_others_are_passed_over(tmp_path):
    written(tmp_path, "x{}.png", "x{}_heatmap.png", "saliency/x{}.png", "thumbnails/x{}.png", "x{}_viz.jpg")
    understood = understand(tmp_path, Options())
    assert len(understood.cases) == 4
    assert {role.reason for role in understood.passed} == {"pictures made of others, such as heat maps"}


def test_patients_who_hold_most_of_the_normal_pictures_are_trained_on(tmp_path):
    """Of the BraTS kind: every patient has normal and anomalous slices."""
    written(tmp_path, "p{0}/a.png", "p{0}/b.png", "p{0}/c.png", "p{0}/c_mask.png = mask")
    understood = understand(tmp_path, Options())
    splits = {split: [c for c in understood.cases if c.split == split] for split in ("train", "valid", "test")}
    groups = {split: {case.group for case in cases} for split, cases in splits.items()}
    assert not (
        groups["train"] & groups["test"] or groups["train"] & groups["valid"] or groups["valid"] & groups["test"]
    )
    assert sum(case.trainable for case in splits["train"]) == 4 and any(case.anomalous for case in splits["test"])
    assert "normal and anomalous pictures" in " ".join(understood.notes)


def test_images_that_are_all_anomalous_are_no_training_data(tmp_path):
    written(tmp_path, "images/x{}.png", "masks/x{}.png = mask")
    with pytest.raises(ValueError, match=r"all 4 images are anomalous.*normal cases.*mask_pattern none"):
        understand(tmp_path, Options())
