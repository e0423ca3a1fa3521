"""A volume of a single slice, in any direction, laid out so that one orientation step brings it upright."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd


def as_axial_slice(image: MetaTensor) -> MetaTensor:
    """Lay a single-slice scan out as ``[1,X,Y,1]`` with an affine that ``Orientationd("PLS")`` turns upright."""
    affine = to_affine_nd(3, np.asarray(image.meta["affine"], float))
    shape = tuple(image.shape[1:])
    data = image.as_tensor().reshape(1, *shape, *(1,) * (3 - len(shape)))
    single = 2 if len(shape) == 2 or shape[2] == 1 else shape.index(1)
    in_plane = [axis for axis in range(3) if axis != single]
    order = [*in_plane, single]
    data, affine = data.permute(0, *(axis + 1 for axis in order)), affine[:, [*order, 3]]
    meta = dict(image.meta)
    meta["affine"] = torch.from_numpy(display_affine(affine))
    meta["original_affine"], meta["spatial_shape"] = np.asarray(meta["affine"]), np.asarray(data.shape[1:])
    return MetaTensor(data.contiguous(), meta=meta)


def display_affine(affine: np.ndarray) -> np.ndarray:
    """Return the affine of an axial slice that is displayed as this slice (third column its normal) should be.

    Axial slices keep theirs. In the others superior takes the place of anterior (up) and, in sagittal ones,
    posterior that of left (right of the display).
    """
    *in_plane, normal = nib.aff2axcodes(affine)
    if normal in ("S", "I"):
        return affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    place = {"S": (1, 1), "I": (1, -1), "L": (0, -1), "R": (0, 1), "P": (0, -1), "A": (0, 1)}
    axial = np.diag([0, 0, spacing[2], 1])
    for column, code in enumerate(in_plane):
        world, sign = place[code]
        axial[world, column] = sign * spacing[column]
    return axial
