"""Where the voxels of a scan's file lie, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ScanGrid:
    """The grid of one file.

    Attributes:
        shape: of the file's array: ``(W, H)`` of a picture, ``(X, Y)`` or ``(X, Y, Z)`` of a scan.
        affine: ``[4,4]`` from voxel indices to millimetres (RAS+, as NIfTI); None of a picture, whose file has none.
        slice_axis: axis of the array across the slices; None of a picture and of a file of shape ``(X, Y)``.
        reversed_slices: whether the network's slices count the other way than the file's.
        uneven: why the affine does not tell where all slices lie (a DICOM series that lacks some); empty where it does.
    """

    shape: tuple[int, ...]
    affine: NDArray | None = None
    slice_axis: int | None = None
    reversed_slices: bool = False
    uneven: str = ""

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any], picture: bool, axcodes: str = "PLS") -> ScanGrid:
        """The grid of a file read with ``LoadScand``.

        Args:
            meta: of the image; holds ``scan_shape`` and ``scan_affine``.
            picture: a PNG, JPEG and the like: no millimetres.
            axcodes: orientation of the network's volumes; its last letter says where their slices count up to.
        """
        shape = tuple(int(side) for side in meta["scan_shape"])
        if picture:
            return cls(shape)
        affine = _full_affine(np.asarray(meta["scan_affine"], float))
        if len(shape) == 2:
            return cls(shape, affine)
        codes = nib.aff2axcodes(affine)
        pair = next(pair for pair in ("LR", "AP", "IS") if axcodes[2] in pair)
        axis = shape.index(1) if 1 in shape else next(i for i, code in enumerate(codes) if code in pair)
        return cls(shape, affine, axis, codes[axis] != axcodes[2], meta.get("uneven_slices", ""))

    @property
    def slices(self) -> int:
        """How many slices the file has."""
        return 1 if self.slice_axis is None else self.shape[self.slice_axis]

    @property
    def unit(self) -> str:
        """In which the size of a finding is given: ``ml``, ``mm2`` where there is one slice, ``px`` in pictures."""
        return "px" if self.affine is None else "ml" if self.slices > 1 else "mm2"

    @property
    def in_plane(self) -> tuple[int, ...]:
        """The axes of a slice."""
        return tuple(axis for axis in range(len(self.shape)) if axis != self.slice_axis)

    @property
    def pixel_area(self) -> float:
        """Of one pixel of a slice in mm²; 1 in pictures."""
        if self.affine is None:
            return 1.0
        first, second = (self.affine[:3, axis] for axis in self.in_plane)
        return float(np.linalg.norm(np.cross(first, second)))

    @property
    def voxel_size(self) -> float:
        """Of one voxel in :attr:`unit`."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1e3 if self.unit == "ml" else self.pixel_area

    def slice_number(self, index: int) -> int:
        """The file's slice, counted from 1, that is slice ``index`` (from 0) of the network's volume."""
        return self.slices - index if self.reversed_slices else index + 1

    def slice_index(self, number: int) -> int:
        """The network's slice, from 0, that is the file's slice ``number``, from 1: inverts :meth:`slice_number`."""
        return self.slices - number if self.reversed_slices else number - 1

    def world(self, voxels: NDArray) -> NDArray:
        """Voxel indices ``[n,d]`` to millimetres ``[n,3]``; of a picture the indices themselves."""
        if self.affine is None:
            return np.asarray(voxels, float)
        return voxels @ self.affine[:3, : voxels.shape[1]].T + self.affine[:3, 3]


def _full_affine(affine: NDArray) -> NDArray:
    """A ``[4,4]`` affine; one of two axes gets a third of length 1."""
    if affine.shape == (4, 4):
        return affine
    full = np.eye(4)
    full[:2, :2], full[:2, 3] = affine[:2, :2], affine[:2, 2]
    return full
