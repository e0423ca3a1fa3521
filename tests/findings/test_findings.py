"""Findings against closed forms: spheres, boxes, and what NIfTI says of a voxel's place."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dino_uad.findings import MinSize, ScanGrid, components, extract_findings
from scans import ORIENTATIONS, affine_of


def grid_of(shape, affine, axcodes="PLS"):
    return ScanGrid.from_meta({"picture": False, "scan_shape": shape, "scan_affine": affine}, axcodes)


def test_a_sphere_has_its_volume_and_diameter() -> None:
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    points = np.moveaxis(np.indices((60, 60, 40)), 0, -1) * [0.5, 0.5, 1.0]
    distance = np.linalg.norm(points - [15, 15, 20], axis=-1)
    labels, findings = extract_findings(10 - distance, grid_of((60, 60, 40), affine), threshold=0)
    (sphere,) = findings
    assert sphere.unit == "ml" and sphere.size == pytest.approx(4 / 3 * math.pi, rel=0.02)
    assert sphere.diameter == pytest.approx(20, abs=1.3)  # corner to corner: up to one voxel more
    assert sphere.slice_diameter == pytest.approx(20, abs=0.8)
    assert (sphere.voxel, sphere.world, sphere.slice) == ((30, 30, 20), (15.0, 15.0, 20.0), 21)
    assert (sphere.first_slice, sphere.last_slice, sphere.peak) == (11, 31, 10.0)
    assert sphere.voxels == (labels == 1).sum()
    assert json.loads(json.dumps(sphere.as_dict()))["voxels"] == sphere.voxels


def test_a_box_has_its_diagonals() -> None:
    scores = np.zeros((20, 20, 12))
    scores[3:7, 5:8, 2:6] = 1  # 4 x 3 x 4 voxels
    _, (box,) = extract_findings(scores, grid_of(scores.shape, np.diag([2.0, 1.0, 5.0, 1])), threshold=1)
    assert box.size == pytest.approx(48 * 10 / 1000)
    assert box.diameter == pytest.approx(math.hypot(8, 3, 20))
    assert box.slice_diameter == pytest.approx(math.hypot(8, 3))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_world_coordinates_are_those_of_nibabel(orientation: str) -> None:
    affine = affine_of(orientation)
    scores = np.zeros((6, 7, 5))
    scores[4, 2, 3] = 3.0
    _, (finding,) = extract_findings(scores, grid_of(scores.shape, affine), threshold=1)
    assert finding.world == pytest.approx(nib.affines.apply_affine(affine, (4, 2, 3)))
    assert finding.size == pytest.approx(abs(np.linalg.det(affine[:3, :3])) / 1e3)


@pytest.mark.parametrize("axcodes", ["PLS", "PLI", "IPL", "ILP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_slice_numbers_follow_nibabels_reorientation(orientation: str, axcodes: str) -> None:
    affine, shape = affine_of(orientation), (4, 5, 6)
    grid = grid_of(shape, affine, axcodes)
    numbered = np.indices(shape)[grid.slice_axis] + 1
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axcodes))
    oriented = nib.apply_orientation(numbered, turn)
    assert [grid.slice_number(k) for k in range(grid.slices)] == [*oriented[0, 0]]


def test_pictures_and_single_slices_have_their_own_units() -> None:
    scores = np.zeros((9, 8))
    scores[2:5, 3:5] = 2
    _, (picture,) = extract_findings(scores, ScanGrid((9, 8)), threshold=1)
    assert (picture.size, picture.unit, picture.diameter_unit) == (6, "px", "px")
    assert (picture.world, picture.slice, picture.diameter) == (None, None, pytest.approx(math.hypot(3, 2)))
    affine = np.diag([0.5, 2.0, 7.0, 1])
    _, (single,) = extract_findings(scores[..., None], grid_of((9, 8, 1), affine), threshold=1)
    assert (single.size, single.unit, single.slice) == (6, "mm2", 1)
    assert single.diameter == single.slice_diameter == pytest.approx(math.hypot(1.5, 4))  # whatever its thickness
    _, (flat,) = extract_findings(scores, grid_of((9, 8), affine), threshold=1)
    assert (flat.size, flat.unit, flat.slice, flat.diameter) == (6, "mm2", 1, pytest.approx(math.hypot(1.5, 4)))


def test_findings_are_numbered_by_their_peaks_and_small_ones_left_out() -> None:
    scores = np.zeros((30, 10, 4))
    scores[0:2, 0, 0], scores[5:15, 2:6, 1:3], scores[20:23, 5, 2] = 5.0, 2.0, 3.0
    grid = grid_of(scores.shape, np.diag([1, 1, 2.0, 1]))
    labels, findings = extract_findings(scores, grid, threshold=1)
    assert [(finding.number, finding.peak) for finding in findings] == [(1, 5), (2, 3), (3, 2)]
    assert [labels[0, 0, 0], labels[21, 5, 2], labels[5, 2, 1]] == [1, 2, 3]
    for text, left in [("0.005 ml", [3, 2]), ("0.01", [2]), ("3 mm2", [3, 2]), ("4 px", [2]), (0, [5, 3, 2])]:
        labels, findings = extract_findings(scores, grid, 1, min_size=MinSize.parse(text))
        assert [finding.peak for finding in findings] == left, text
        assert set(np.unique(labels)) == {0, *range(1, len(left) + 1)}


@pytest.mark.parametrize("text", ["-1", "1 m", "much", "nan", "inf", None, "1 ml ml"])
def test_sizes_that_are_none_are_refused(text) -> None:
    with pytest.raises(ValueError, match="smallest size"):
        MinSize.parse(text)


def test_a_picture_has_no_millilitres() -> None:
    with pytest.raises(ValueError, match="no millimetres"):
        extract_findings(np.ones((3, 3)), ScanGrid((3, 3)), 0.5, min_size=MinSize.parse("1 ml"))


maps = arrays.arrays(np.float32, (7, 6, 5), elements=st.integers(0, 4).map(float))


@given(maps)
def test_grown_findings_are_the_low_components_with_a_high_score(scores) -> None:
    labels, count = components(scores, 4, grow=2)
    low, lows = components(scores, 2)
    expected = [number for number in range(1, lows + 1) if scores[low == number].max() >= 4]
    assert count == len(expected)
    assert ((labels > 0) == np.isin(low, expected)).all()
    assert [np.unique(low[labels == n]).tolist() for n in range(1, count + 1)] == [[n] for n in expected]
    with pytest.raises(ValueError, match="above the threshold"):
        components(scores, 2, grow=3)


@given(arrays.arrays(np.bool_, (5, 4, 3)).filter(np.any))
def test_diameters_are_the_largest_distance_of_any_two_corners(mask) -> None:
    grid = grid_of(mask.shape, affine_of("oblique"))
    _, findings = extract_findings(mask.astype(float), grid, 1)
    labels, _ = components(mask.astype(float), 1)
    corners = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3), -1).reshape(-1, 3)
    longest = []
    for label in range(1, labels.max() + 1):
        points = nib.affines.apply_affine(grid.affine, (np.argwhere(labels == label)[:, None] + corners).reshape(-1, 3))
        longest.append(np.linalg.norm(points[:, None] - points, axis=-1).max())
    assert [finding.diameter for finding in findings] == pytest.approx(longest)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float64", "bool"])
def test_maps_of_any_type_have_the_same_findings(dtype):
    scores = np.zeros((9, 8))
    scores[2:4, 2:5], scores[7, 7] = 1, 1
    labels, findings = extract_findings(scores.astype(dtype), ScanGrid((9, 8)), 1)
    expected_labels, expected = extract_findings(scores, ScanGrid((9, 8)), 1)
    np.testing.assert_array_equal(labels, expected_labels)
    assert findings == expected and [one.voxels for one in findings] == [6, 1]


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_a_map_with_nan_is_not_a_map_without_findings(share):
    scores = np.zeros((10, 10), np.float32)
    scores.flat[: int(100 * share)] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        extract_findings(scores, ScanGrid((10, 10)), 0.5)
