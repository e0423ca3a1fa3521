"""Label maps whose values are not all anomalies: an option says which are, and whatever reads masks knows it."""

import inspect
import json
import re
from collections import Counter

import layouts
import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image
from understood_cases import anomalous, understood

from dino_uad.bundle_run import find_bundle
from dino_uad.calibrate import DATA_OPTIONS
from dino_uad.data import datalist
from dino_uad.data.case import Options
from dino_uad.data.cases import understand
from dino_uad.data.check import check
from dino_uad.data.preparation import prepare
from dino_uad.embeddings import entry_key
from scans import affine_of, write_nifti

WITH_LESION = {1, 2, 4, 5, 7}


@pytest.fixture
def livers(tmp_path):
    """Eight scans, each with 1 in the liver; of five 2 in two slices of it, in one slice of scan 4 also 3."""
    rng = np.random.default_rng(0)
    for k in range(8):
        labels = np.zeros((16, 16, 5), np.uint8)
        labels[3:12, 3:12] = 1
        if k in WITH_LESION:
            labels[5:8, 6:8, 1:3] = 2
        labels[5, 5, 4] = 3 if k == 4 else 1
        image = rng.integers(1, 255, labels.shape).astype(np.float32)
        write_nifti(tmp_path / f"data/imagesTr/liver_{k}.nii.gz", image, affine_of("LPS"))
        write_nifti(tmp_path / f"data/labelsTr/liver_{k}.nii.gz", labels, affine_of("LPS"))
    return tmp_path / "data"


def name(item):
    return int(re.search(r"_(\d)\.", item["image"])[1])


@pytest.mark.parametrize("chosen", [[2], 2, (2, 2)])
def test_a_scan_with_an_organ_alone_is_normal(livers, chosen):
    items = [one for split in ("train", "valid", "test") for one in datalist(livers, split, anomalous_labels=chosen)]
    assert {name(one) for one in items if one["anomalous"]} == WITH_LESION and len(items) == 8
    for one in items:
        assert one.get("anomalous_labels") == ([2] if name(one) in WITH_LESION else None)
        assert ("label" in one) == (name(one) in WITH_LESION)
    assert sum(one["anomalous"] for split in ("train", "valid", "test") for one in datalist(livers, split)) == 8


def test_values_of_masks_are_told(livers):
    notes = " ".join(understand(livers, Options(anomalous_labels=[2])).notes)
    assert "values of masks that mark anomalies: 2; others: 1, 3" in notes and "no mask has" not in notes
    assert "anomalies: 2; others: 1, 3; no mask has 7" in " ".join(
        understand(livers, Options(anomalous_labels=[7, 2])).notes
    )
    with pytest.raises(
        ValueError, match=r"is \[7\], but none of the 8 masks \(such as labelsTr/liver_0.*found 0, 1, 2, 3"
    ):
        datalist(livers, "train", anomalous_labels=[7])


def test_the_configs_fit_leaves_out_the_slices_of_these_values_alone(livers):
    parser = ConfigParser()
    parser.read_config(find_bundle("dpmm") / "configs" / "train.json")
    parser.update({"dataset_dir": str(livers), "image_size": [14, 14], "train_data#anomalous_labels": [2]})
    steps = parser.get_parsed_content("train#preprocessing")
    for split in ("train_data", "val_data"):
        for one in parser.get_parsed_content(split):
            kept = [item["slice_index"] for item in steps(one)]
            assert kept == ([0, 3, 4] if name(one) in WITH_LESION else [0, 1, 2, 3, 4])


def test_what_is_cached_or_compared_knows_the_option(livers):
    entry = next(one for one in datalist(livers, "test", anomalous_labels=[2]) if one["anomalous"])
    others = [
        {key: value for key, value in entry.items() if key != "anomalous_labels"},
        entry | {"anomalous_labels": [1]},
    ]
    assert len({entry_key(one) for one in (entry, *others)}) == 3


def test_prepare_writes_masks_of_these_values(livers, tmp_path):
    summary = prepare(str(livers), str(tmp_path / "out"), anomalous_labels=[2])
    slices = Counter()
    for split, count in summary["slices"].items():
        slices[split.rpartition("/")[2]] += count
    held_out = 2 * sum(one["anomalous"] for one in datalist(livers, "train", anomalous_labels=[2]))
    assert slices == {"Ungood": 10 - held_out, "good": 30}
    for path in (tmp_path / "out").glob("test/*/label/*.png"):
        assert np.count_nonzero(Image.open(path)) == (6 if "Ungood" in path.parts else 0)
    assert json.loads((tmp_path / "out/dataset.json").read_text())["parameters"]["anomalous_labels"] == [2]


def test_check_sees_what_the_fit_sees(livers, capsys):
    for path in (livers / "labelsTr").iterdir():
        labels = np.pad(np.ones((15, 15, 5), np.uint8), ((1, 0), (1, 0), (0, 0)))
        labels[5:8, 6:8, 1:3] = 2
        write_nifti(path, labels, affine_of("LPS"))
    assert any("mark more than half" in note for note in check(str(livers))["notes"])
    found = check(str(livers), anomalous_labels=[2])
    assert not any("mark more than half" in note or "looked at" in note for note in found["notes"])
    assert "values of masks that mark anomalies: 2; others: 1" in capsys.readouterr().out


def test_masks_of_one_image_that_share_an_organ_are_parts_of_one_annotation(tmp_path):
    layouts.write(tmp_path, [f"x{k}.png" for k in range(6)])
    for part, rows in (("_mask_1", slice(2, 5)), ("_mask_2", slice(8, 11))):
        labels = np.pad(np.ones((layouts.SIDE - 2, layouts.SIDE - 2), np.uint8), 1)
        labels[rows] *= 2
        Image.fromarray(labels).save(tmp_path / f"x1{part}.png")
    with pytest.raises(ValueError, match="they mark the same place"):
        understood(tmp_path)
    (case,) = [case for case in understood(tmp_path, anomalous_labels=[2]) if case.anomalous]
    assert len(case.labels) == 2


ORGAN, LESION = 100, 200


def write_masks(root, folder, values, names):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for k in names:
        labels = np.zeros((layouts.SIDE, layouts.SIDE), np.uint8)
        for row, value in enumerate(values):
            labels[3 * row : 3 * row + 2] = value
        Image.fromarray(labels).save(root / folder / f"{k}.png")


def test_masks_of_normal_images_may_mark_organs(tmp_path):
    layouts.write(tmp_path, [f"{name}/images/{k}.png" for name in ("Normal", "COVID") for k in range(4)])
    write_masks(tmp_path, "Normal/masks", [ORGAN], range(4))
    write_masks(tmp_path, "COVID/masks", [ORGAN, LESION], range(4))
    with pytest.raises(ValueError, match=r"4 images are normal by .*--train_data#anomalous_labels '\[2\]'"):
        understood(tmp_path)
    assert len(anomalous(understood(tmp_path, anomalous_labels=[LESION]))) == 4
    write_masks(tmp_path, "COVID/masks", [ORGAN], [3])
    for split in ("train", "valid", "test"):
        items = understand(tmp_path, Options(anomalous_labels=[LESION])).cases
        ill = [case for case in items if case.image.relative == "COVID/images/3.png" and case.split == split]
        if ill:
            with pytest.raises(ValueError, match=r"3\.png: the mask has none of the anomalous_labels \[200\]"):
                datalist(tmp_path, split, anomalous_labels=[LESION])


@pytest.mark.parametrize("folder", ["lung masks", "predicted_masks"])
def test_masks_called_after_organs_are_answered_and_predictions_are_not(tmp_path, folder):
    layouts.write(tmp_path, [f"images/{k}.png" for k in range(6)])
    write_masks(tmp_path, folder, [ORGAN], range(3))
    write_masks(tmp_path, folder, [ORGAN, LESION], range(3, 6))
    with pytest.raises(ValueError, match=r"called after organs or predictions .*anomalous_labels"):
        understood(tmp_path)
    if folder == "lung masks":
        assert anomalous(understood(tmp_path, anomalous_labels=[LESION])) == {f"images/{k}.png" for k in range(3, 6)}
    else:
        with pytest.raises(ValueError, match="called after organs or predictions"):
            understood(tmp_path, anomalous_labels=[LESION])


def test_masks_that_are_no_label_maps_are_named(tmp_path):
    layouts.write(tmp_path, [f"{name}/images/{k}.png" for name in ("Normal", "COVID") for k in range(4)])
    (tmp_path / "COVID/masks").mkdir()
    for k in range(4):
        colour = np.zeros((layouts.SIDE, layouts.SIDE, 3), np.uint8)
        colour[3:6] = 255, 0, 0
        Image.fromarray(colour).save(tmp_path / f"COVID/masks/{k}.png")
    with pytest.raises(ValueError, match=r"COVID/masks/0\.png: the mask has colours"):
        understood(tmp_path, anomalous_labels=[LESION])


def test_a_calibration_reads_a_folder_as_a_fit_does():
    drawn = {"dataset_dir", "split", "normal_only", "valid_fraction", "test_fraction", "seed", "on_error"}
    assert set(DATA_OPTIONS) == set(inspect.signature(datalist).parameters) - drawn - {"anonymous_names"}
