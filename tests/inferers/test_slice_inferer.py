"""Volumes are scored slice by slice; what is empty scores zero."""

import pytest
import torch

from dino_uad.inferers.slice_inferer import SliceOrImageInferer


def double(x):
    assert x.shape[0] <= 2
    return 2 * x[:, :1]


def test_image_goes_straight_through():
    image = torch.rand(2, 1, 4, 5)
    assert torch.equal(SliceOrImageInferer(2)(image, double), 2 * image)


def test_slices_are_scored_in_batches_and_empty_ones_are_zero():
    volume = torch.rand(1, 1, 4, 5, 7) + 0.1
    volume[..., [0, 3]] = 0
    calls = []
    result = SliceOrImageInferer(2)(volume, lambda x: calls.append(len(x)) or double(x) + 1)
    assert calls == [2, 2, 1]
    expected = 2 * volume + 1
    expected[..., [0, 3]] = 0
    torch.testing.assert_close(result, expected)


def test_empty_volume_scores_zero_without_running_the_network():
    result = SliceOrImageInferer(2)(torch.zeros(1, 1, 4, 4, 3), lambda x: pytest.fail("network was called"))
    assert not result.any()


def test_smoothing_acts_across_occupied_slices_and_keeps_the_mean():
    volume = torch.zeros(1, 1, 2, 2, 9)
    volume[..., 2:7] = 1e-3
    volume[..., 4] = 1.0
    smooth = SliceOrImageInferer(2, smoothing="1.0")(volume, lambda x: x.clone())
    assert smooth[0, 0, 0, 0, 4] < 1 and smooth[0, 0, 0, 0, 3] > 1e-3
    assert not smooth[..., :2].any() and not smooth[..., 7:].any()
    torch.testing.assert_close(smooth.sum(), volume.sum(), rtol=0.05, atol=0)


def test_wrong_dimension_names_the_shape():
    with pytest.raises(ValueError, match=r"\[3, 4, 4\]"):
        SliceOrImageInferer()(torch.zeros(3, 4, 4), double)
