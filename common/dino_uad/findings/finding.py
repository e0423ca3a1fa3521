"""From an anomaly map on the scan's own grid to numbered, measured findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dino_uad.findings.diameter import largest_diameter, largest_slice_diameter, run_ends
from dino_uad.findings.grid import ScanGrid
from dino_uad.findings.min_size import MinSize
from dino_uad.findings.regions import components, renumber

ALL_SIZES = MinSize()


@dataclass(frozen=True)
class Finding:
    """One connected place of an anomaly map.

    Attributes:
        number: from 1, by falling peak; its value in a numbered label map.
        voxels: how many voxels (pixels) it has.
        size: volume or area in ``unit``; None where slices are not evenly spaced, whose distances an affine lacks.
        unit: ``ml``; ``mm2`` in a scan of one slice; ``px`` in a picture. Where the file states no size of its voxels:
            ``voxels``, and ``px`` in a scan of one slice.
        diameter: largest distance between two of its points, in ``diameter_unit``; None as ``size``, and in ``voxels``.
        slice_diameter: the same within one slice, as RECIST 1.1 measures.
        diameter_unit: ``mm``, or ``px`` as above.
        peak: highest score.
        voxel: indices of the peak in the file's array, from 0: ``(x, y)`` or ``(x, y, z)``.
        world: millimetres ``(x, y, z)`` of the peak, RAS+ as in NIfTI; None where none are stated, and as ``size``.
        slice: slice of the peak in the file, from 1 as viewers count; None in a picture.
        first_slice: lowest slice it is seen in.
        last_slice: highest slice it is seen in.
    """

    number: int
    voxels: int
    size: float | None
    unit: str
    diameter: float | None
    slice_diameter: float
    diameter_unit: str
    peak: float
    voxel: tuple[int, ...]
    world: tuple[float, float, float] | None
    slice: int | None
    first_slice: int | None
    last_slice: int | None

    def as_dict(self) -> dict[str, Any]:
        """JSON types, in the order of the attributes."""
        return asdict(self)


def extract_findings(
    scores: NDArray, grid: ScanGrid, threshold: float, grow: float | None = None, min_size: MinSize = ALL_SIZES
) -> tuple[NDArray[np.integer], list[Finding]]:
    """Find, measure and number what reaches ``threshold``.

    Args:
        scores: map of any real type in the shape of the file, ``grid.shape``.
        grid: of the file.
        threshold: score that a finding reaches somewhere.
        grow: score down to which it extends; ``threshold`` when None.
        min_size: smaller ones are left out; none where that is a volume and slices are not evenly spaced, or in
            millimetres that the file of a scan does not state.

    Returns:
        labels like ``scores``: 0, or the number of the finding; and the findings by falling peak.

    Raises:
        ValueError: the shapes differ, a score is NaN, ``grow`` is above ``threshold``, or the file cannot tell sizes in
            that unit.
    """
    if scores.shape != grid.shape:
        raise ValueError(f"map of shape {scores.shape} found, its file has {grid.shape}; expected equal shapes")
    lowest = scores.min()
    if np.isnan(lowest):  # and would reach no threshold
        raise ValueError("anomaly map with NaN found, expected numbers: no finding would not mean that it is normal")
    min_size.require_fits(grid)
    labels, count = components(scores, threshold, grow)
    if (grid.uneven and min_size.unit in (None, "ml")) or (grid.no_spacing and min_size.unit in ("ml", "mm2")):
        min_size = ALL_SIZES  # rather a finding too many than one that was taken for smaller than it is
    found = []
    for label, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is not None and _size(mask := labels[place] == label, grid, min_size.unit) >= min_size.size:
            found.append((float(scores[place].max(where=mask, initial=lowest)), label, place))
    found.sort(key=lambda item: (-item[0], item[1]))
    findings = [_measured(n, peak, labels[p] == k, scores[p], p, grid) for n, (peak, k, p) in enumerate(found, start=1)]
    numbers = np.zeros(count + 1, dtype=labels.dtype)
    numbers[[label for _, label, _ in found]] = np.arange(1, len(found) + 1)
    return renumber(labels, numbers), findings


def _size(mask: NDArray[np.bool_], grid: ScanGrid, unit: str | None) -> float:
    """Size of a finding in ``unit`` (the grid's when None); an area is that in the slice where it is largest."""
    if unit is None or unit == grid.unit:
        return np.count_nonzero(mask) * grid.voxel_size
    pixels = np.count_nonzero(mask, axis=grid.in_plane).max() if grid.slice_axis is not None else np.count_nonzero(mask)
    return int(pixels) * (grid.pixel_area if unit == "mm2" else 1.0)


def _measured(
    number: int, peak: float, mask: NDArray[np.bool_], scores: NDArray, place: tuple[slice, ...], grid: ScanGrid
) -> Finding:
    """A finding from its mask and scores in the box ``place``; of its voxels only the rim is ever listed."""
    start = np.array([side.start for side in place])
    at = start + np.unravel_index(int(np.argmax(mask & (scores == peak))), mask.shape)
    rim = np.argwhere(run_ends(mask, grid.in_plane)) + start
    picture, axis, unknown = grid.affine is None, grid.slice_axis, bool(grid.uneven) or not grid.measured
    across = largest_slice_diameter(rim, grid)  # how thick a single slice is, few files tell
    return Finding(
        number=number,
        voxels=int(np.count_nonzero(mask)),
        size=None if grid.uneven else _size(mask, grid, None),
        unit=grid.unit,
        diameter=across if grid.slices == 1 else None if unknown else largest_diameter(rim, grid),
        slice_diameter=across,
        diameter_unit="mm" if grid.measured else "px",
        peak=peak,
        voxel=tuple(int(index) for index in at),
        world=None if unknown else tuple(float(value) for value in grid.world(at[None])[0]),
        slice=None if picture else 1 if axis is None else int(at[axis]) + 1,
        first_slice=None if picture else 1 if axis is None else place[axis].start + 1,
        last_slice=None if picture else 1 if axis is None else place[axis].stop,
    )
