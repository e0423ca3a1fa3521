"""What calibration scans look like, and which new ones do not."""

import math

import numpy as np
import pytest
import torch

from dino_uad.detector.seen import FEATURES, SeenScans
from dino_uad.transforms import looks
from helpers import detector
from scans import OBLIQUE, affine_of


def seen() -> SeenScans:
    fitted = SeenScans()
    values = torch.tensor([[0.9, 5.0, 0.3, 0.1], [1.1, 5.0, 0.4, 0.2], [1.0, math.nan, 0.35, 0.15]])
    fitted.fit(values.double().repeat(5, 1), ["LPS", "RAS", "RAS"] * 5)
    return fitted


@pytest.mark.parametrize(
    ("values", "orientation", "expected"),
    [
        ([1.0, 5.0, 0.35, 0.15], "LPS", []),
        ([0.4, 1.0, 0.35, 0.15], "RAS", ["pixel size", "slice spacing"]),
        ([1.0, 5.0, 0.7, 0.4], "RAS", ["mean intensity", "spread of intensities"]),
        ([1.0, 5.0, 0.35, 0.15], "PIR", ["orientation"]),
        ([math.nan, math.nan, 0.35, 0.15], None, []),
    ],
)
def test_what_is_outside_of_what_was_seen_is_named(values, orientation, expected) -> None:
    assert seen().unlike(torch.tensor(values, dtype=torch.float64), orientation) == expected


def test_without_calibration_nothing_is_unlike() -> None:
    assert SeenScans().unlike(torch.tensor([1.0, 1, 1, 1]).double(), "LPS") == []


def normal_scans(rng, count, spread=0.06):
    """Of one protocol; mean and spread of the intensities vary from patient to patient."""
    columns = [np.ones(count), np.full(count, 5.0), rng.normal(0.3, spread, count), rng.normal(0.2, spread / 2, count)]
    return torch.tensor(np.stack(columns, axis=1).clip(min=0.01))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 10, 24])
def test_few_normal_scans_are_called_unlike_however_few_were_seen(count) -> None:
    rng, unlike = np.random.default_rng(0), []
    for _ in range(150):
        fitted = SeenScans()
        fitted.fit(normal_scans(rng, count), ["LPS"] * count)
        assert fitted.known == (count >= 10)
        unlike += [bool(fitted.unlike(one, "LPS")) for one in normal_scans(rng, 20)]
    assert np.mean(unlike) < 0.015


def test_slices_of_one_patient_are_one_scan() -> None:
    fitted, values = SeenScans(), normal_scans(np.random.default_rng(0), 24)
    fitted.fit(values, ["LPS"] * 24, ["a", "b"] * 12)
    assert not fitted.known and fitted.unlike(100 * values[0], "PIR") == []
    fitted.fit(values, ["LPS"] * 24, [f"patient {i // 2}" for i in range(24)])
    assert fitted.unlike(100 * values[0], "PIR") == [*FEATURES, "orientation"]


def test_looks_of_a_volume_are_its_spacing_and_foreground() -> None:
    slices = torch.zeros(3, 1, 4, 4)
    slices[:2, 0, :2] = torch.tensor([0.2, 0.4, 0.6, 0.8])
    volume = {"picture": False, "scan_shape": (4, 4, 3), "scan_affine": affine_of("LPS")}
    values, orientation = looks(slices, volume, "PLS")
    # In the plane 0.7 x 1.1 mm; the third axis has 3 mm.
    inside = slices[0][slices[0] > 0].double().numpy()
    assert orientation == "LPS"
    assert values.tolist() == pytest.approx([math.sqrt(0.77), 3.0, inside.mean(), np.std(inside, ddof=1)])
    assert looks(slices, volume, "IPL")[0][:2].tolist() == pytest.approx([math.sqrt(1.1 * 3.0), 0.7])  # sagittal ones
    assert looks(slices[:1], volume | {"scan_shape": (4, 4, 1)}, "PLS")[0][1].isnan()  # few files tell how thick one is
    oblique, _ = looks(slices, volume | {"scan_affine": OBLIQUE}, "PLS")
    normal = np.cross(OBLIQUE[:3, 0], OBLIQUE[:3, 1])
    assert float(oblique[1]) == pytest.approx(abs(OBLIQUE[:3, 2] @ normal) / np.linalg.norm(normal))
    picture, nothing = looks(slices, {"picture": True, "scan_shape": (4, 4), "scan_affine": np.eye(3)}, "PLS")
    assert nothing is None and picture[:2].isnan().all() and picture[2] == values[2]


@pytest.mark.parametrize(
    ("spacings", "other"),
    [([math.nan], [False, True]), ([5.0, 5.0], [True, False]), ([5.0, math.nan], [False, False]), ([], [False, False])],
)
def test_kinds_are_known_from_the_first_scan_and_outlive_the_model_file(spacings, other) -> None:
    fitted, loaded = SeenScans(), SeenScans()
    if spacings:
        fitted.fit(torch.tensor([[1.0, spacing, 0.3, 0.1] for spacing in spacings]), [None] * len(spacings))
    loaded.load_state_dict(fitted.state_dict())
    assert [loaded.other_kind(slices) for slices in (1, 24)] == other


def test_a_model_from_before_there_were_kinds_does_not_know_them() -> None:
    network = detector()
    network.normal_scans.seen.fit(torch.full((1, 4), math.nan), [None])
    state = network.state_dict()
    del state["normal_scans.seen.kinds"]
    older = detector()
    older.load_state_dict(state)
    assert not older.normal_scans.seen.other_kind(24) and network.normal_scans.seen.other_kind(24)
