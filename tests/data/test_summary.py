"""The table before a fit and the verb ``check``."""

import json
import logging

import layouts
import numpy as np
import pytest
from PIL import Image

from dino_uad.cli import main
from dino_uad.data import datalist
from dino_uad.transforms import png_mark


@pytest.fixture
def folder(tmp_path):
    files = [f"{split}/normal/{split}{k}.png" for split in ("train", "test") for k in range(4)]
    files += ["test/tumour/x0.png", "test/tumour/x1.png", "notes.csv", "preview.webp"]
    layouts.write(tmp_path, files)
    Image.new("L", (16, 16)).save(tmp_path / "train/normal/black.png")
    Image.new("L", (16, 16), 3).save(tmp_path / "train/normal/train0_label.png", pnginfo=png_mark())
    (tmp_path / "test/normal/copy.png").write_bytes((tmp_path / "train/normal/train1.png").read_bytes())
    return tmp_path


def test_check_as_json(folder, capfd):
    main(["check", str(folder), "--json"])
    values = json.loads(capfd.readouterr().out)
    counted = {split: [row[key] for key in ("normal", "anomalous", "masks")] for split, row in values["splits"].items()}
    assert counted == {"train": [4, 0, 0], "valid": [1, 0, 0], "test": [5, 2, 0]}
    assert {reason: files["count"] for reason, files in values["passed_over"].items()} == {
        "files of a format that is not read": 1,
        "images of a format that is not read": 1,
        "results of this package": 1,
    }
    notes = " ".join(values["notes"])
    assert "1 images have the same value everywhere" in notes and "black.png" in notes
    assert "1 images are in two splits (such as" in notes and "test/normal/copy.png" in notes
    assert "no masks: image-level metrics only" in notes
    assert values["images"]["test, anomalous"]["sizes"] == "16x16"


def test_check_as_a_table(folder, capsys):
    main(["check", str(folder)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("pictures; splits told by folders; valid drawn from train by patient, seed 0")
    (test,) = [line.split() for line in lines if line.startswith("  test ")]
    assert test[:5] == ["test", "5", "2", "0", "7"]


def test_the_table_is_logged_before_a_fit(folder, caplog):
    with caplog.at_level(logging.INFO):
        datalist(folder, "train")
    assert "passed over: 1 results of this package (such as train/normal/train0_label.png)" in caplog.text
    assert "patients: not known, every image counts as one" in caplog.text


def test_a_fit_of_black_images_says_so(tmp_path, caplog):
    for k in range(4):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"p{k}.png")
    with caplog.at_level(logging.INFO):
        datalist(tmp_path, "train")
    assert "all images of the fit are such: a model learns nothing from them" in caplog.text


@pytest.mark.parametrize(("inverted", "said"), [(True, True), (False, False)])
def test_masks_that_mark_most_of_their_image_are_told_of(tmp_path, capsys, inverted, said):
    layouts.write(tmp_path, [f"x{k}.png" for k in range(5)] + [f"x{k}_mask.png = mask" for k in range(2)])
    for path in tmp_path.glob("*_mask.png") if inverted else ():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    main(["check", str(tmp_path)])
    assert ("2 of 2 masks looked at mark more than half of their image" in capsys.readouterr().out) == said
