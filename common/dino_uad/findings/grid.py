"""Where the voxels of a scan's file lie, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from monai.data.utils import to_affine_nd
from numpy.typing import NDArray

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From DICOM's millimetres (left, posterior, superior) to NIfTI's (right, anterior, superior), or back."""
NO_SPACING = "no_spacing"
"""The meta data entry: why the file's affine has no millimetres; empty where it has."""


@dataclass(frozen=True)
class ScanGrid:
    """The grid of one file.

    Attributes:
        shape: of the file's array: ``(W, H)`` of a picture, ``(X, Y)`` or ``(X, Y, Z)`` of a scan.
        affine: ``[4,4]`` from voxel indices to millimetres (RAS+, as NIfTI); None of a picture, whose file has none.
        slice_axis: axis of the array across the slices; None of a picture and of a file of shape ``(X, Y)``.
        reversed_slices: whether the network's slices count the other way than the file's.
        uneven: why the affine does not tell where all slices lie (a DICOM series that lacks some); empty where it does.
        no_spacing: why the affine has no millimetres (a header that states no pixel size); empty where it has.
    """

    shape: tuple[int, ...]
    affine: NDArray | None = None
    slice_axis: int | None = None
    reversed_slices: bool = False
    uneven: str = ""
    no_spacing: str = ""

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any], axcodes: str) -> ScanGrid:
        """The grid of a file read with ``LoadScand``.

        Args:
            meta: of the image; holds ``picture`` (which has no millimetres), ``scan_shape`` and ``scan_affine``.
            axcodes: orientation of the network's volumes; its last letter says where their slices count up to.
        """
        shape = tuple(int(side) for side in meta["scan_shape"])
        if meta["picture"]:
            return cls(shape)
        affine = to_affine_nd(3, np.asarray(meta["scan_affine"], float))
        no_spacing = meta.get(NO_SPACING, "")
        if len(shape) == 2:
            return cls(shape, affine, no_spacing=no_spacing)
        codes = nib.aff2axcodes(affine)
        pair = next(pair for pair in ("LR", "AP", "IS") if axcodes[2] in pair)
        axis = shape.index(1) if 1 in shape else next(i for i, code in enumerate(codes) if code in pair)
        return cls(shape, affine, axis, codes[axis] != axcodes[2], meta.get("uneven_slices", ""), no_spacing)

    @property
    def slices(self) -> int:
        """How many slices the file has."""
        return 1 if self.slice_axis is None else self.shape[self.slice_axis]

    @property
    def measured(self) -> bool:
        """Whether the file states the size of its voxels."""
        return self.affine is not None and not self.no_spacing

    @property
    def unit(self) -> str:
        """Unit of a finding's size: ``ml``, ``mm2`` where there is one slice.

        Where the file states no millimetres it is ``voxels`` and ``px``, as in pictures.
        """
        if self.measured:
            return "ml" if self.slices > 1 else "mm2"
        return "voxels" if self.slices > 1 else "px"

    @property
    def in_plane(self) -> tuple[int, ...]:
        """The axes of a slice."""
        return tuple(axis for axis in range(len(self.shape)) if axis != self.slice_axis)

    @property
    def pixel_area(self) -> float:
        """Area of one pixel of a slice in mm²; 1 where that is not stated."""
        if not self.measured:
            return 1.0
        first, second = (self.affine[:3, axis] for axis in self.in_plane)
        return float(np.linalg.norm(np.cross(first, second)))

    @property
    def voxel_size(self) -> float:
        """Size of one voxel, in :attr:`unit`."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1e3 if self.unit == "ml" else self.pixel_area

    def slice_number(self, index: int) -> int:
        """Number in the file, from 1, of slice ``index`` (from 0) of the network's volume."""
        return self.slices - index if self.reversed_slices else index + 1

    def slice_index(self, number: int) -> int:
        """The network's slice, from 0, that is the file's slice ``number``, from 1: inverts :meth:`slice_number`."""
        return self.slices - number if self.reversed_slices else number - 1

    def world(self, voxels: NDArray) -> NDArray:
        """Voxel indices ``[n,d]`` to millimetres ``[n,3]``; where none are stated the indices themselves."""
        if not self.measured:
            return np.asarray(voxels, float)
        return voxels @ self.affine[:3, : voxels.shape[1]].T + self.affine[:3, 3]
