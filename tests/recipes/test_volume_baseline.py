"""What the slices of a volume are measured from, by the recipe that compares ways to do it, against NumPy."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

RECIPES = Path(__file__).resolve().parents[2] / "common" / "recipes"


@pytest.fixture
def stack_baseline(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    return importlib.import_module("volume_baseline").StackBaseline


@pytest.fixture
def volume():
    """Scores and foreground ``[9,1,6,5]``; nothing is foreground in the first slice."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(9, 1, 6, 5, generator=generator) + torch.arange(9.0).view(-1, 1, 1, 1)
    foreground = torch.rand(scores.shape, generator=generator) > 0.4
    foreground[0] = False
    return scores, foreground


def percentiles(scores, foreground):
    return np.array([np.percentile(one[inside], 25) for one, inside in zip(scores[1:], foreground[1:], strict=True)])


def test_each_slice_or_the_whole_volume(stack_baseline, volume):
    own = stack_baseline(0.5, 0.0).measure(*volume)
    assert float(own[0]) == 0
    np.testing.assert_allclose(own[1:], percentiles(*volume), rtol=1e-6)
    whole = stack_baseline(0.5, np.inf).measure(*volume)
    np.testing.assert_allclose(whole, np.full(9, np.percentile(volume[0][volume[1]], 25)), rtol=1e-6)


def test_the_mean_along_the_volume_is_of_slices_with_a_foreground(stack_baseline, volume):
    smooth = stack_baseline(0.5, 2.0).measure(*volume)
    assert float(smooth[0]) == 0
    expected = gaussian_filter1d(percentiles(*volume).astype(np.float64), 2.0, mode="nearest")
    np.testing.assert_allclose(smooth[1:], expected, rtol=1e-5)
