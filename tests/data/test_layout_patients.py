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
    "BIDS decides": (
        [f"sub-OAS3000{p}_ses-d{v}129_run-01_T1w.nii.gz" for p in range(3) for v in (0, 1)],
        [f"sub-OAS3000{p}" for p in range(3)],
    ),
    "BIDS behind a slice": (
        [f"0{k}0-sub-0{p}.png" for p in range(4) for k in range(3)],
        [f"sub-0{p}" for p in range(4)],
    ),
    "ADNI": (
        [
            f"ADNI_00{p}_S_029{p}_MR_MP-RAGE__br_raw_200{y}0418193713091_12_S1340{y}_I1372{p}{y}.nii"
            for p in range(3)
            for y in "67"
        ],
        [f"00{p}_S_029{p}" for p in range(3)],
    ),
    "TCGA barcodes of tiles": (
        [f"TCGA-A{p}-A0B0-01Z_x{256 * k}_y512.png" for p in range(4) for k in range(3)],
        [f"TCGA-A{p}-A0B0" for p in range(4)],
    ),
    "tiles": (
        [f"886{p}_idx5_x{51 * k}_y51_class0.png" for p in range(4) for k in range(3)],
        [f"886{p}_idx5" for p in range(4)],
    ),
    "identifiers of images": (
        [f"1000{p}_14595417{p}{k}.png" for p in range(4) for k in range(3)],
        [f"1000{p}" for p in range(4)],
    ),
    "accessions": (
        [f"123456{p}_9876543{p}{k}.nii.gz" for p in range(4) for k in range(3)],
        [f"123456{p}" for p in range(4)],
    ),
    "identifiers behind a word": (
        [f"HAM_000{p}_ISIC_00243{p}{k}.png" for p in range(4) for k in range(3)],
        [f"000{p}" for p in range(4)],
    ),
    "an identifier behind the file's": (
        [f"205869{p}{k}_6c613a14b80a859{p}_MG_{v}_ANON.png" for p in range(4) for k, v in enumerate(("R_CC", "L_ML"))],
        [f"6c613a14b80a859{p}" for p in range(4)],
    ),
    "sides and visits": (
        [f"900110{p}_{s}_V0{v}.nii.gz" for p in range(3) for s in ("LEFT", "RIGHT") for v in range(2)],
        [f"900110{p}" for p in range(3)],
    ),
    "views of breasts": (
        [f"2058690{p}_{v}.png" for p in range(4) for v in ("R_CC", "L_ML", "LMLO")],
        [f"2058690{p}" for p in range(4)],
    ),
    "follow-ups beside a first scan": (
        [f"UCSF-PDGM-001{p}{v}_FLAIR.nii.gz" for p in range(3) for v in ("", "_FU001d", "_postop")],
        [f"UCSF-PDGM-001{p}" for p in range(3)],
    ),
    "frames of six digits": (
        [f"video_0{p}_frame_{k:06d}.png" for p in range(4) for k in (120, 127, 134)],
        [f"video_0{p}" for p in range(4)],
    ),
    "frames of a film": (
        [f"f_{p}_frame_00012{k}.png" for p in range(4) for k in range(3)],
        [f"f_{p}" for p in range(4)],
    ),
    "slices first": (
        [f"0{k}0_patient0{p}.png" for p in range(4) for k in range(9)],
        [f"patient0{p}" for p in range(4)],
    ),
    "slices first in words": (
        [f"slice_01{k}_patient_{p}.png" for p in range(4) for k in range(3)],
        [f"patient_{p}" for p in range(4)],
    ),
    "slices first by a letter": (
        [f"s01{k}_patient{p}.png" for p in range(4) for k in range(3)],
        [f"patient{p}" for p in range(4)],
    ),
    "dates first": ([f"2020010{v}_case{p}.nii.gz" for p in range(3) for v in "12"], [f"case{p}" for p in range(3)]),
    "visits first": ([f"{v}_P0{p}.nii.gz" for p in range(3) for v in ("pre", "post")], [f"P0{p}" for p in range(3)]),
    "sites first": (
        [f"site{s}_sub{p}_{k}.png" for s in "AB" for p in "12" for k in "12"],
        [f"site{s}_sub{p}" for s in "AB" for p in "12"],
    ),
    "glued": ([f"pat0{p}s00{k}.png" for p in range(4) for k in range(3)], [f"pat0{p}" for p in range(4)]),
    "glued words": (
        [f"Patient00{p}Slice00{k}.png" for p in range(4) for k in range(3)],
        [f"Patient00{p}" for p in range(4)],
    ),
    "glued letters": ([f"p0{p}{k}.png" for p in range(4) for k in "abc"], [f"p0{p}" for p in range(4)]),
    "augmented in other words": (
        [f"img{p}{a}.png" for p in range(4) for a in ("", "_fliplr", "_bright", "_noise", "_blur", "_zoom", "_sharp")],
        [f"img{p}" for p in range(4)],
    ),
    "augmented in words before": (
        [f"{a}img{p}.png" for p in range(4) for a in ("", "rotated_", "flip_", "aug_1_", "aug_2_")],
        [f"img{p}" for p in range(4)],
    ),
    "a year is no patient": (
        [f"case_2019_00{p}.nii.gz" for p in range(2)] + [f"case_2020_00{p}.nii.gz" for p in range(2)],
        [f"case_20{y}_00{p}" for y in (19, 20) for p in range(2)],
    ),
    "images of one disease are counted": (
        [f"{c}_00100{k}.png" for c in ("normal", "tumor") for k in range(4)],
        [f"{c}_00100{k}" for c in ("normal", "tumor") for k in range(4)],
    ),
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


@pytest.mark.parametrize("name", ["0{k}0_{who}.png", "site_{who}{k}_0{k}0.nii.gz"])
def test_names_that_share_a_number_though_each_is_a_patient_are_told_of(tmp_path, name):
    """Of slices of Anna and Ben nothing says who is the patient; numbers of sites are no patients'."""
    layouts.write(tmp_path, [name.format(k=k, who=who) for k in range(3) for who in ("anna", "ben", "carl", "dora")])
    found = understand(tmp_path, Options())
    assert len({case.group for case in found.cases}) == 12
    assert ("names share a number" in " ".join(found.notes)) == ("site" not in name)


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


def test_a_group_pattern_of_alternatives_gives_the_one_that_matched(tmp_path):
    files = [f"case{p}/IMG{k}.png" for p in range(4) for k in range(2)]
    assert {c.group for c in understood(tmp_path, *files, group_pattern="case([01])/|case([23])/")} == set("0123")
    with pytest.raises(ValueError, match=r"does not match 'case0/IMG0\.png'"):  # it finds text of length 0
        understood(tmp_path, group_pattern=r"(\d*)")


def test_a_drawn_test_split_has_an_anomalous_patient_and_a_normal_one(tmp_path):
    files = [f"p{k}.nii.gz" for k in range(6)] + ["p0_seg.nii.gz = mask", "p1_seg.nii.gz = mask"]
    layouts.write(tmp_path, files)
    for seed in range(5):
        cases = understand(tmp_path, Options(seed=seed)).cases
        assert {case.anomalous for case in cases if case.split == "test"} == {True, False}
        assert {case.split for case in cases} == set(SPLITS)
