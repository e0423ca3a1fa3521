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
