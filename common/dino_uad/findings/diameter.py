"""The largest diameter of a set of voxels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from dino_uad.findings.grid import ScanGrid


def largest_diameter(voxels: NDArray, grid: ScanGrid) -> float:
    """Largest distance between two points of the voxels, corner to corner (maximum Feret diameter).

    Args:
        voxels: indices ``[n,d]``, at least one; those of :func:`run_ends` are enough.
        grid: of their file.

    Returns:
        millimetres; pixels in a picture.
    """
    return _diameter(voxels, np.arange(voxels.shape[1]), grid)


def largest_slice_diameter(voxels: NDArray, grid: ScanGrid) -> float:
    """Largest diameter within one slice, over all slices, as in RECIST 1.1; millimetres, pixels in a picture."""
    if grid.slice_axis is None:
        return largest_diameter(voxels, grid)
    plane, at = np.array(grid.in_plane), voxels[:, grid.slice_axis]
    order = np.argsort(at, kind="stable")
    slices = np.split(voxels[order], np.flatnonzero(np.diff(at[order])) + 1)
    return max(_diameter(part, plane, grid) for part in slices)


def run_ends(mask: NDArray[np.bool_], axes: Sequence[int]) -> NDArray[np.bool_]:
    """Mask of the voxels that do not lie between two others along any of ``axes``.

    All vertices of the convex hull are among them, of the whole and of every plane along ``axes``, and few others.
    """
    ends = mask.copy()
    for axis in axes:
        inner, before, after = (np.moveaxis(array, axis, 0) for array in (ends, mask, mask))
        inner[1:-1] &= ~(before[:-2] & after[2:])
    return ends


def _diameter(voxels: NDArray, axes: NDArray, grid: ScanGrid) -> float:
    """Largest distance between corners of the voxels, in the plane or space of ``axes``, from their convex hull."""
    shell = voxels
    for axis in axes:
        shell = _ends(shell, int(axis))
    offsets = np.zeros((2 ** len(axes), voxels.shape[1]))
    offsets[:, axes] = list(itertools.product((-0.5, 0.5), repeat=len(axes)))
    corners = np.unique((shell[:, None] + offsets).reshape(-1, voxels.shape[1]), axis=0)
    vertices = corners[ConvexHull(corners[:, axes]).vertices]
    return float(pdist(grid.world(vertices)).max())


def _ends(voxels: NDArray, axis: int) -> NDArray:
    """The first and the last voxel of every line along ``axis``: no other can be a vertex of the hull."""
    others = [other for other in range(voxels.shape[1]) if other != axis]
    order = np.lexsort((voxels[:, axis], *(voxels[:, other] for other in others)))
    ordered = voxels[order]
    new_line = np.r_[True, np.any(np.diff(ordered[:, others], axis=0) != 0, axis=1)]
    last = np.r_[new_line[1:], True]
    return ordered[new_line | last]
