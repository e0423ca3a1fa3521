"""Whom images show, and that no patient is in two splits."""

import layouts
import pytest
from understood_cases import SPLITS, understood

from dino_uad.data.case import Options
from dino_uad.data.cases import understand

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
    "the first is 0": ([f"IM-000{p}-000{k}.png" for p in range(4) for k in range(3)], [f"IM-000{p}" for p in range(4)]),
    "visits": ([f"sub-{p}_ses-{s}_T1w.nii.gz" for p in range(3) for s in "12"], [f"sub-{p}" for p in range(3)]),
    "dates": ([f"q{p}_200{y}0103.nii.gz" for p in range(3) for y in "12"], [f"q{p}" for p in range(3)]),
    "stripped": ([f"q{p}_T1{b}.nii.gz" for p in range(3) for b in ("", "_brain")], [f"q{p}" for p in range(3)]),
    "TCGA": ([f"TCGA_CS_{p}_20000902_{k}.png" for p in "123" for k in "12"], [f"TCGA_CS_{p}_20000902" for p in "123"]),
    "visits as folders": (
        [f"BraTS-GLI-0004{p}-{v}/BraTS-GLI-0004{p}-{v}-t2f.nii.gz" for p in range(3) for v in (100, 101)],
        [f"brats-gli-0004{p}" for p in range(3)],
    ),
    "visits in folders": (
        [f"d/OAS1_000{p}_MR{v}/RAW/OAS1_000{p}_MR{v}_anon.nii.gz" for p in range(3) for v in (1, 2)],
        [f"d/oas1_000{p}" for p in range(3)],
    ),
    "days in folders": (
        [f"OAS3000{p}_MR_d{v + p}/anat/T1w.nii.gz" for p in range(3) for v in (1000, 2000)],
        [f"oas3000{p}" for p in range(3)],
    ),
    "some came twice": (
        [f"U-0000{p}_{v}_FLAIR.nii.gz" for p in range(5) for v in (11, 21) if p < 2 or v == 11],
        [f"U-0000{p}" for p in range(5)],
    ),
    "visits before an end": (
        [f"training0{p}_0{v}_flair_pp.nii" for p in range(4) for v in range(3)],
        [f"training0{p}" for p in range(4)],
    ),
    "months": (
        [f"002_S_020{p}_{v}_T1.nii.gz" for p in range(4) for v in ("bl", "m06", "m12")],
        [f"002_S_020{p}" for p in range(4)],
    ),
    "pre and post": (
        [f"sub0{p}_{v}.nii.gz" for p in range(3) for v in ("pre", "post")],
        [f"sub0{p}" for p in range(3)],
    ),
    "visits of pictures": ([f"A0{p}_v{v}.png" for p in range(3) for v in "12"], [f"A0{p}" for p in range(3)]),
    "contrasts": ([f"p{p}_{c}.nii.gz" for p in range(4) for c in ("fat", "water")], [f"p{p}" for p in range(4)]),
    "people of sites are no visits": (
        [f"site{s}_{p}.nii.gz" for s in range(4) for p in range(3)],
        [f"site{s}_{p}" for s in range(4) for p in range(3)],
    ),
    "numbers of their own are no visits": (
        [f"IXI00{p}-Guys-10{p}0-T1.nii.gz" for p in range(4)],
        [f"IXI00{p}-Guys-10{p}0" for p in range(4)],
    ),
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


def test_folders_of_too_few_patients_are_told_of(tmp_path):
    layouts.write(tmp_path, [f"patient{p}/IM_{k:04d}.png" for p in (1, 2) for k in range(6)])
    assert "folders look like 2 patients (patient1, patient2), too few" in understand(tmp_path, Options()).notes[0]


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
