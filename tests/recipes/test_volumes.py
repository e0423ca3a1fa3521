"""What the recipe for whole volumes counts, on maps whose answer is known."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

RECIPES = Path(__file__).resolve().parents[2] / "common" / "recipes"


@pytest.fixture(scope="module")
def volumes():
    spec = importlib.util.spec_from_file_location("volumes", RECIPES / "volumes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scan(volumes):
    """Four slices of 10 × 10, the left half foreground; a lesion of 2 × 10 pixels in two of them."""
    maps, label = np.zeros((4, 10, 10)), np.zeros((4, 10, 10), bool)
    label[2:, :2] = True
    maps[0, :, 0] = 2.0  # 10 of the 100 pixels of the tumour-free slices' foreground, above the threshold for 5 %
    maps[0, 0, 9] = 9.0  # not in the foreground
    maps[2, :2] = 3.0  # half of the lesion, above both
    inside = np.zeros((4, 10, 10), bool)
    inside[:, :, :5] = True
    thresholds = {0.05: 1.0, 0.01: 2.5}
    return volumes.Scan("p", maps, inside, label, np.array([5.0, 1.0, 6.0, 1.0]), thresholds, 4.0, 0.01)


def test_rates_are_those_of_tumour_free_slices(volumes, scan):
    row = volumes.rates([scan])[2]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["p", "4, 2", "10.0%", "0.0%", "1 of 2", "1 of 2"]


def test_lesions_are_counted_in_three_dimensions(volumes, scan):
    every = volumes.lesions([scan, scan, scan])[-1]
    assert [cell.strip() for cell in every.split("|")[1:-1]] == ["0.4 to 0.4 ml", "3", "100%", "50%", "100%", "50%"]


def test_a_small_lesion_is_left_out(volumes, scan):
    small = scan._replace(voxel_ml=0.004)  # 0.16 ml
    assert volumes.lesions([scan, scan, scan, small])[-1] == volumes.lesions([scan, scan, scan])[-1]
