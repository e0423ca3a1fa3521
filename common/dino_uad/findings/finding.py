"""From an anomaly map on the scan's own grid to numbered, measured findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dino_uad.findings.components import components
from dino_uad.findings.diameter import largest_diameter, largest_slice_diameter
from dino_uad.findings.grid import ScanGrid
from dino_uad.findings.min_size import MinSize

ALL_SIZES = MinSize()


@dataclass(frozen=True)
class Finding:
    """One connected place of an anomaly map.

    Attributes:
        number: from 1, by falling peak; its value in a numbered label map.
        voxels: how many voxels (pixels) it has.
        size: volume or area in ``unit``.
        unit: ``ml``; ``mm2`` in a scan of one slice; ``px`` in a picture.
        diameter: largest distance between two of its points, in ``diameter_unit``.
        slice_diameter: the same within one slice, as RECIST 1.1 measures.
        diameter_unit: ``mm``, or ``px`` in a picture.
        peak: highest score.
        voxel: indices of the peak in the file's array, from 0: ``(x, y)`` or ``(x, y, z)``.
        world: millimetres ``(x, y, z)`` of the peak, RAS+ as in NIfTI; None in a picture.
        slice: slice of the peak in the file, from 1 as viewers count; None in a picture.
        first_slice: lowest slice it is seen in.
        last_slice: highest slice it is seen in.
    """

    number: int
    voxels: int
    size: float
    unit: str
    diameter: float
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
) -> tuple[NDArray[np.int32], list[Finding]]:
    """Find, measure and number what reaches ``threshold``.

    Args:
        scores: map in the shape of the file, ``grid.shape``.
        grid: of the file.
        threshold: score that a finding reaches somewhere.
        grow: score down to which it extends; ``threshold`` when None.
        min_size: smaller ones are left out.

    Returns:
        labels like ``scores``: 0, or the number of the finding; and the findings by falling peak.

    Raises:
        ValueError: the shapes differ, ``grow`` is above ``threshold``, or the file cannot tell sizes in that unit.
    """
    if scores.shape != grid.shape:
        raise ValueError(f"map of shape {scores.shape} found, its file has {grid.shape}; expected equal shapes")
    min_size.require_fits(grid)
    labels, count = components(scores, threshold, grow)
    places = [place for place in ndimage.find_objects(labels) if place is not None]
    found = []
    for label, place in enumerate(places, start=1):
        voxels = np.argwhere(labels[place] == label) + [axis.start for axis in place]
        values = scores[tuple(voxels.T)]
        if _size(voxels, grid, min_size.unit) >= min_size.size:
            found.append((float(values.max()), label, voxels, voxels[int(values.argmax())]))
    found.sort(key=lambda item: (-item[0], item[1]))
    numbers = np.zeros(count + 1, dtype=np.int32)
    for number, (_, label, _, _) in enumerate(found, start=1):
        numbers[label] = number
    findings = [_measured(n, peak, voxels, at, grid) for n, (peak, _, voxels, at) in enumerate(found, start=1)]
    return numbers[labels], findings


def _size(voxels: NDArray, grid: ScanGrid, unit: str | None) -> float:
    """In ``unit``; an area is that in the slice where it is largest."""
    if unit is None or unit == grid.unit:
        return len(voxels) * grid.voxel_size
    pixels = len(voxels) if grid.slice_axis is None else int(np.bincount(voxels[:, grid.slice_axis]).max())
    return pixels * (grid.pixel_area if unit == "mm2" else 1.0)


def _measured(number: int, peak: float, voxels: NDArray, at: NDArray, grid: ScanGrid) -> Finding:
    picture = grid.affine is None
    slices = None if picture else voxels[:, grid.slice_axis] + 1 if grid.slice_axis is not None else np.ones(1, int)
    return Finding(
        number=number,
        voxels=len(voxels),
        size=_size(voxels, grid, None),
        unit=grid.unit,
        diameter=largest_diameter(voxels, grid),
        slice_diameter=largest_slice_diameter(voxels, grid),
        diameter_unit="px" if picture else "mm",
        peak=peak,
        voxel=tuple(int(index) for index in at),
        world=None if picture else tuple(float(value) for value in grid.world(at[None])[0]),
        slice=None if picture else 1 if grid.slice_axis is None else int(at[grid.slice_axis]) + 1,
        first_slice=None if picture else int(slices.min()),
        last_slice=None if picture else int(slices.max()),
    )
