"""Folders and names that say who is normal."""

import layouts
import pytest
from understood_cases import anomalous, understood

from dino_uad.data.case import Options
from dino_uad.data.cases import understand

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


def test_names_that_say_normal_beside_names_that_say_nothing_ask(tmp_path):
    files = [f"{name}_{k}.png" for name in ("normal", "osteophyte") for k in range(4)]
    with pytest.raises(ValueError, match=r"file names look like classes: normal \(4\), others \(4\)"):
        understood(tmp_path, *files)
    assert anomalous(understood(tmp_path, normal="normal_*")) == set(files[4:])
    assert anomalous(understood(tmp_path, normal="*")) == set()


def test_folders_that_are_anomalous_by_their_place_alone_are_told_of(tmp_path):
    files = [f"{name}/{name}{k}.png" for name in ("normal", "tumor", "unlabeled", "misc") for k in range(4)]
    notes = understand(layouts.write(tmp_path, files), Options()).notes
    told = "beside them: misc (4), unlabeled (4); move away what is not known"
    assert told in " ".join(notes)
    assert "beside them" not in " ".join(understand(tmp_path, Options(normal="normal")).notes)


def test_folders_that_masks_or_words_call_anomalous_need_no_note(tmp_path):
    files = [f"{name}/{name}{k}.png" for name in ("good", "crack", "severe", "patient") for k in range(4)]
    masks = [f"ground_truth/crack/crack{k}_mask.png = mask" for k in range(4)]
    layouts.write(tmp_path, [*files[:8], *masks])
    assert "beside them" not in " ".join(understand(tmp_path, Options()).notes)
    layouts.write(tmp_path / "x", [file for file in files if not file.startswith("crack")])
    assert "beside them" not in " ".join(understand(tmp_path / "x", Options()).notes)
