"""Foreground on pixels and on patches."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_closing

from dino_uad.transforms.foreground_mask import ForegroundMaskd, close, to_patches


def test_closing_equals_scipy_away_from_the_border():
    mask = torch.zeros(1, 40, 40, dtype=torch.bool)
    mask[0, 8:32, 8:32] = torch.rand(24, 24, generator=torch.Generator().manual_seed(0)) > 0.6
    expected = binary_closing(mask[0].numpy(), np.ones((5, 5)))
    np.testing.assert_array_equal(close(mask, 2)[0], expected)


def test_closing_keeps_foreground_at_the_border_and_slices_apart():
    mask = torch.ones(1, 10, 10, 3, dtype=torch.bool)
    mask[..., 1] = False
    assert torch.equal(close(mask, 3), mask)


def test_methods():
    image = torch.zeros(3, 20, 20)
    image[1, 5:15, 5:15] = 0.04
    image[1, 8:10, 8:10] = 0.5
    assert int(ForegroundMaskd(closing=0)({"image": image})["foreground"].sum()) == 100
    assert int(ForegroundMaskd(method="threshold", closing=0)({"image": image})["foreground"].sum()) == 4
    empty = ForegroundMaskd()({"image": image * 0})["foreground"]
    assert empty.dtype == torch.bool and empty.shape == (1, 20, 20) and not empty.any()


def test_a_patch_with_one_pixel_is_foreground():
    mask = torch.zeros(2, 1, 28, 28, dtype=torch.bool)
    mask[1, 0, 13, 14] = True
    patches = to_patches(mask, (2, 2))
    assert patches.tolist() == [[[[False, False], [False, False]]], [[[False, True], [False, False]]]]


def test_wrong_options():
    with pytest.raises(ValueError, match="expected one of"):
        ForegroundMaskd(method="magic")
