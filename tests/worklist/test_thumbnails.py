"""What the pictures of a worklist outline: the label map itself, in the slice of the first finding."""

import io
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from PIL import Image

from dino_uad.findings import ScanGrid
from dino_uad.handlers import WorklistHandler
from dino_uad.report.panels import PREDICTION_COLOUR
from dino_uad.transforms import InPlaneResized, LoadScand, OrientScand, ThresholdMapd
from dino_uad.worklist import Glance, colours, marked_plane, thumbnail

SIDE = 56
LOW, HIGH = 1.0, 3.0


def test_a_thumbnail_keeps_the_proportions_of_the_body() -> None:
    volume = MetaTensor(torch.rand(1, 56, 56, 3), affine=torch.diag(torch.tensor([2.0, 1, 5, 1])))
    drawn = thumbnail(volume, Glance.of(volume, volume * 0 + 1), (0.5, 0.6), 0)
    with Image.open(io.BytesIO(drawn)) as picture:
        assert picture.size == (2 * 72 + 4, 144)  # each row is twice as high as it is wide


def test_a_glance_is_small_and_knows_the_highest_slice() -> None:
    maps = torch.zeros(1, 448, 448, 7)
    maps[0, 3, 5, 4] = 9
    glance = Glance.of(torch.ones(1, 448, 448, 7), maps)
    assert glance.highest == 4 and glance.maps.shape == (7, 144, 144) and glance.white == 1
    assert glance.maps[4].max() > 0 and not glance.maps[:4].any()


def test_a_finding_of_one_pixel_is_outlined() -> None:
    marked = np.zeros((1000, 800), bool)
    marked[501, 402] = True
    image = torch.full((1, SIDE, SIDE), 0.5)
    with Image.open(io.BytesIO(thumbnail(image, Glance.of(image, image * 0), (1, 2), 0, marked))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    place = np.unravel_index(np.abs(pixels - PREDICTION_COLOUR).sum(axis=2).argmin(), pixels.shape[:2])
    assert np.abs(np.subtract(place, (72, 148 + 72))).max() <= 1, "in the middle of the right half"


def saved(folder: Path, values: np.ndarray, codes: str) -> str:
    """A file of an array whose axes point along ``codes``; a PNG where there are none."""
    path = str(folder / ("scan.nii.gz" if codes else "scan.png"))
    if codes:
        affine = inv_ornt_aff(axcodes2ornt(codes), (20, 20, 20)) @ np.diag([2.0, 3.0, 4.0, 1])
        nib.save(nib.Nifti1Image(values, affine), path)
    else:
        Image.fromarray(values.T).save(path)
    return path


@pytest.mark.parametrize(
    ("shape", "codes", "axcodes"),
    [
        *(((5, 6, 7), codes, axcodes) for codes in ("RAS", "LPS", "SRA", "PIL") for axcodes in ("PLS", "ILP", "IPL")),
        ((5, 6), "RAS", "PLS"),
        ((5, 6, 1), "LPS", "PLS"),
        ((5, 1, 7), "RAS", "PLS"),
        ((1, 6, 7), "RAS", "PLS"),
        ((5, 6), "", "PLS"),
    ],
)
def test_a_slice_of_the_label_map_lies_as_the_network_sees_it(shape, codes, axcodes, tmp_path) -> None:
    """As if the label map had been loaded and oriented itself."""
    numbers = (np.arange(np.prod(shape)) * 7 % 5 < 2).reshape(shape).astype(np.uint8)
    item = OrientScand("image", axcodes)(LoadScand("image")({"image": saved(tmp_path, numbers * 255, codes)}))
    image = item["image"]
    upright = image.as_tensor()[0] > 0
    grid = ScanGrid.from_meta(image.meta, axcodes)
    planes = [upright] if not codes else upright.unbind(-1)
    assert len(planes) == grid.slices
    for k, plane in enumerate(planes):
        number = grid.slice_number(k)
        assert grid.slice_index(number) == k
        np.testing.assert_array_equal(marked_plane(numbers, image, grid, axcodes, number), plane)


@pytest.fixture
def drawn(monkeypatch) -> list:
    """What a handler has drawn: slices and outlines."""
    calls = []
    monkeypatch.setattr(
        "dino_uad.handlers.worklist_handler.thumbnail",
        lambda image, glance, scale, k, marked=None: calls.append((k, marked)) or b"",
    )
    return calls


def after_postprocessing(folder: Path, scores: np.ndarray, min_size: str, axcodes: str = "PLS") -> tuple:
    """The item that a run has in the end of a scan whose map is ``scores``, with its glance and a handler."""
    load = Compose([LoadScand("image"), OrientScand("image", axcodes), InPlaneResized("image", (SIDE, SIDE))])
    item = load({"image": saved(folder, (scores * 20).astype(np.uint8), "LPS" if scores.ndim == 3 else "")})
    score = 20.0 if scores.ndim == 3 else 20 / 255
    item["pred"] = MetaTensor(item["image"].as_tensor() / score, meta=dict(item["image"].meta))
    glance = Glance.of(item["image"], item["pred"])
    threshold = ThresholdMapd("pred", "model.pt", min_size=min_size, axcodes=axcodes)
    threshold._thresholds = HIGH, LOW
    item = Compose([Invertd("pred", load, "image", nearest_interp=False), threshold])(item)
    network = SimpleNamespace(thresholds=torch.full((5,), LOW))
    return WorklistHandler(None, network, threshold), item, glance


def two_blobs() -> np.ndarray:
    """Scores of a small place that is highest, in slice 2 of 5, and of a large one that peaks in slice 4.

    The large one has a part in slice 4 that hangs together with the peak in slice 5 alone, and below the threshold.
    """
    scores = np.zeros((SIDE, SIDE, 5))
    scores[8:12, 8:12, 1] = 8
    scores[20:40, 20:40, 3] = 6
    scores[20:24, 44:52, 3] = 2
    scores[20:24, 30:52, 4] = 2
    return scores


def test_the_outline_is_what_the_label_map_marks_in_the_slice_of_the_first_finding(drawn, tmp_path) -> None:
    scores = two_blobs()
    for min_size, index in (("0", 1), ("100 px", 3)):
        handler, item, glance = after_postprocessing(tmp_path, scores, min_size)
        assert glance.highest == 1
        handler._picture(item, glance)
        k, marked = drawn[-1]
        label = np.asarray(item["pred"])[0, ..., index] > 0
        assert k == index and item["findings"][0].slice == index + 1
        np.testing.assert_array_equal(marked, label.T)  # rows of a picture are the file's second axis
    assert marked[46, 22] and marked[30, 30] and not marked[10, 10]


def test_nothing_is_outlined_where_all_findings_are_too_small(drawn, tmp_path) -> None:
    for scores, shown in ((two_blobs(), 1), (two_blobs()[..., 1], 0)):
        handler, item, glance = after_postprocessing(tmp_path, scores, "5000 px")
        handler._picture(item, glance)
        assert drawn[-1] == (shown, None)


def test_a_picture_is_outlined_as_its_label_map(drawn, tmp_path) -> None:
    handler, item, glance = after_postprocessing(tmp_path, two_blobs()[..., 3], "100 px")
    handler._picture(item, glance)
    k, marked = drawn[-1]
    np.testing.assert_array_equal(marked, np.asarray(item["pred"])[0].T > 0)
    assert k == 0 and marked.sum() == 20 * 20, "not the place that no high score grows into"


def test_colours_start_at_the_lower_threshold_and_end_as_far_above_the_higher() -> None:
    assert colours(1.0, (3.0, 1.0)) == (1.0, 5.0)
    assert colours(1.0, (0.5, 0.5)) == colours(1.0, None) == (1.0, 1.0 + 1e-6)
