"""Classes that stand before or behind numbers in names are understood or asked for, and the answer asked for works."""

import re

import layouts
import pytest
from understood_cases import anomalous, understood

from dino_uad.data.words import is_anomalous, is_normal

UNDERSTOOD = {
    "file names": "{c}{k}.png",
    "folders of patients": "{c}0{k}/s1.png",
    "BIDS": "sub-{c}0{k}/anat/sub-{c}0{k}_T1w.nii.gz",
}


@pytest.mark.parametrize("place", UNDERSTOOD.values(), ids=UNDERSTOOD)
@pytest.mark.parametrize("names", [("normal", "tumor"), ("control", "anomaly")])
def test_words_of_classes_are_understood_with_numbers_attached(tmp_path, place, names):
    files = [place.format(c=c, k=k) for c in names for k in range(1, 6)]
    assert anomalous(understood(tmp_path, *files)) == set(files[5:])


def test_numbered_class_folders_are_patients_as_well(tmp_path):
    cases = understood(tmp_path, *(f"{c}0{k}/s{n}.png" for c in ("normal", "tumor") for k in range(1, 5) for n in "12"))
    assert {case.group for case in cases} == {f"{c}0{k}" for c in ("normal", "tumor") for k in range(1, 5)}


ASKED = {
    "controls and Parkinson": (["HC0{}/T1.nii.gz", "PD0{}/T1.nii.gz"], 1),
    "BIDS": (["sub-NC0{0}/ses-1/sub-NC0{0}_T1w.nii.gz", "sub-AD0{0}/ses-1/sub-AD0{0}_T1w.nii.gz"], 1),
    "yes and no": (["N{}.jpg", "Y{}.jpg"], 1),
    "no, glioma, meningioma": (["Tr-no_001{}.jpg", "Tr-gl_001{}.jpg", "Tr-me_001{}.jpg"], 2),
    "normal and patients": (["cohort/normal0{}.png", "cohort/patient0{}.png"], 1),
    "Kermany": (["IM-0{}15-0001.jpeg", "person{0}_bacteria_{0}.jpeg"], 1),
    "Shenzhen": (["CHNCXR_000{}_0.png", "CHNCXR_001{}_1.png"], 1),
    "nothing but normal is said": (["Normal-{}.png", "Opacity-{}.png"], 1),
}


@pytest.mark.parametrize("name", ASKED)
def test_names_that_look_like_classes_are_asked_for_with_an_answer_that_works(tmp_path, name):
    places, ill = ASKED[name]
    files = [place.format(k) for place in places for k in range(1, 6)]
    with pytest.raises(ValueError, match=r"look like classes: .*--train_data#normal '") as error:
        understood(tmp_path, *files)
    answer = re.search(r"--train_data#normal '([^']*)'", str(error.value))[1]
    assert anomalous(understood(tmp_path, normal=answer)) == set(files[-5 * ill :])
    assert not anomalous(understood(tmp_path, normal="*"))


@pytest.mark.parametrize(
    "places",
    [
        ["patient0{}.png"],
        ["HC0{}/T1.nii.gz"],
        ["anna_{}.png", "bob_{}.png"],
        ["siteA_{}.png", "siteB_{}.png"],
        ["p{}_0.png", "p{}_1.png"],
        ["case{}.png", "scan{}.png"],
        ["Dr_Smith_{}.png", "Dr_Jones_{}.png"],
    ],
)
def test_ordinary_names_are_not_asked_for(tmp_path, places):
    assert len(understood(tmp_path, *(place.format(k) for place in places for k in range(1, 6)))) == 5 * len(places)


def test_folders_whose_images_all_have_a_class_are_no_classes(tmp_path):
    files = [f"{s}/{c}/{s}{c}{k}.png" for s in ("siteA", "siteB") for c in ("normal", "tumor") for k in range(4)]
    assert len(anomalous(understood(tmp_path, *files))) == 8


@pytest.mark.parametrize(
    ("name", "normal", "ill"),
    [
        *((name, False, True) for name in ("non_melanoma", "non_benign", "non-stroke", "not_normal", "no_benign")),
        *((name, False, False) for name in ("HER2_negative", "gram_negative", "stain_norm", "good_quality")),
        *((name, False, False) for name in ("normal_pressure_hydrocephalus", "bad_quality", "normal_dose")),
        *((name, True, False) for name in ("non_tumor", "NonDemented", "No_DR", "no_stroke", "sans_lesion", "norm")),
        *((name, True, False) for name in ("study1_negative", "TumorNegative", "p12_negative", "0_neg", "tumor_free")),
    ],
)
def test_what_words_say_of_a_class(name, normal, ill):
    assert (is_normal(name), is_anomalous(name)) == (normal, ill)


def test_words_that_deny_count_in_file_names(tmp_path):
    files = [f"{name}_{k}.png" for name in ("normal", "no_tumor", "tumor", "not_normal") for k in range(4)]
    assert anomalous(understood(tmp_path, *files)) == set(files[8:])


@pytest.mark.parametrize("names", [("melanoma", "non_melanoma"), ("chory", "zdrowy"), ("HER2_negative", "other")])
def test_folders_that_may_be_ill_are_not_proposed_as_normal(tmp_path, names):
    layouts.write(tmp_path, [f"{name}/{name[0]}{k}.png" for name in names for k in range(4)])
    with pytest.raises(ValueError, match=r"look like classes.*--train_data#normal 'NAME' with one of them"):
        understood(tmp_path)
    assert len(anomalous(understood(tmp_path, normal=names[1]))) == 4
