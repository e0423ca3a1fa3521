"""Which pixels of a mask are marked, whatever its format did to its values."""

import io

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from dino_uad.transforms import ExtractSlicesd, FillLabeld, LoadScan, marked

DISC = np.hypot(*np.mgrid[-20:20, -20:20]) < 11


def from_picture(tmp_path, array, suffix=".png", **options):
    path = tmp_path / f"mask{suffix}"
    Image.fromarray(array).save(path, **options)
    return marked(LoadScan()(path))[0].numpy().T


@pytest.mark.parametrize("value", [1, 128, 255])
def test_two_values_are_cut_between_them(tmp_path, value):
    np.testing.assert_array_equal(from_picture(tmp_path, DISC.astype(np.uint8) * value), DISC)


def test_a_background_that_is_not_zero(tmp_path):
    np.testing.assert_array_equal(from_picture(tmp_path, np.where(DISC, 255, 40).astype(np.uint8)), DISC)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_marks_the_same_pixels_but_a_few_at_the_edge(tmp_path, quality):
    found = from_picture(tmp_path, DISC.astype(np.uint8) * 255, ".jpg", quality=quality)
    stream = io.BytesIO()
    Image.fromarray(DISC.astype(np.uint8) * 255).save(stream, "JPEG", quality=quality)
    above_zero = np.asarray(Image.open(stream)) > 0
    assert (found != DISC).sum() <= 0.03 * DISC.sum() < (above_zero != DISC).sum()


@pytest.mark.parametrize("labels", [(1, 2, 4), (127, 255), (1, 2, 3)])
def test_every_label_of_a_map_is_marked(tmp_path, labels):
    array = np.zeros(DISC.shape, np.uint8)
    for row, label in enumerate(labels):
        array[DISC & (np.arange(40)[:, None] % len(labels) == row)] = label
    np.testing.assert_array_equal(from_picture(tmp_path, array), DISC)


def test_every_instance_of_many_is_marked_and_soft_edges_are_not(tmp_path):
    """40 instances; and the same discs blurred, whose values are whole numbers up to 255 as well."""
    array = np.zeros((160, 160), np.uint8)
    for k in range(40):
        array[5 + 30 * (k // 8) :, 5 + 20 * (k % 8) :][:9, :9] = k + 1
    np.testing.assert_array_equal(from_picture(tmp_path, array), array > 0)
    volume = np.stack([0 * array, array.T], -1)[None].astype(np.float32)
    np.testing.assert_array_equal(marked(torch.from_numpy(volume)).numpy(), volume > 0)
    soft = gaussian_filter(255.0 * np.kron(DISC, np.ones((4, 4))), 5).astype(np.uint8)
    assert abs(int(from_picture(tmp_path, soft).sum()) - 16 * DISC.sum()) < 0.03 * 16 * DISC.sum()


def test_labels_in_sixteen_bits(tmp_path):
    array = np.where(DISC, 1 + np.arange(40)[:, None] % 3, 0).astype(np.uint16)
    np.testing.assert_array_equal(from_picture(tmp_path, array), DISC)


def test_a_smoothed_mask_keeps_its_size():
    blurred = gaussian_filter(DISC.astype(np.float32), 2)
    assert (blurred > 1e-6).sum() > 2 * DISC.sum()
    assert abs(int(marked(torch.from_numpy(blurred)).sum()) - DISC.sum()) < 0.03 * DISC.sum()


def test_a_volume_is_decided_on_whole_and_not_slice_by_slice():
    ball = (np.linalg.norm(np.mgrid[-8:8, -8:8, -8:8], axis=0) < 5).astype(np.float32)
    label = zoom(ball, 2, order=1)
    data = {"image": torch.ones(1, 32, 32, 32), "label": MetaTensor(label[None])}
    slices = ExtractSlicesd()(data)
    found = np.stack([FillLabeld("label")(item)["label"][0].numpy() for item in slices], -1)
    np.testing.assert_array_equal(found > 0, label >= label.max() / 2)
    assert 0.8 < found.sum() / (8 * ball.sum()) < 1.2


def test_nothing_marked():
    assert not marked(torch.zeros(1, 4, 4)).any()
    assert marked(torch.ones(1, 4, 4)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("levels", [(0, 0.001, 0.003), (0, 0.002, 0.004, 0.008, 0.01), (0.001, 0.002, 0.005)])
def test_levels_next_to_zero_are_no_labels(levels, dtype):
    """Probabilities that all are small: at least half of the largest."""
    mask = torch.tensor(levels, dtype=dtype).repeat(8, 1)[None]
    expected = torch.tensor([level >= 0.0049 or level == 0.003 for level in levels]).repeat(8, 1)[None]
    assert marked(mask).equal(expected)
