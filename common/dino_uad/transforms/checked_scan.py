"""What was read, held against what can be scored: dimension, size, values, geometry, and no meta data but these."""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.data import MetaTensor

from dino_uad.findings import NO_SPACING
from dino_uad.transforms.axial_slice import as_axial_slice
from dino_uad.transforms.label_grid import Grid, bring_to_grid
from dino_uad.transforms.nifti_geometry import NIFTI_FORMS
from dino_uad.transforms.units import MM_PER_UNIT

# What the project reads from the meta data. The rest (DICOM tags, NIfTI and NRRD text fields) may identify a patient.
META_KEYS = (
    "affine",
    "original_affine",
    "spatial_shape",
    "original_channel_dim",
    "space",
    "filename_or_obj",
    "picture",
    "unit_range",
    "type_range",
    "scan_affine",
    "scan_shape",
    MM_PER_UNIT,
    NIFTI_FORMS,
    "uneven_slices",
    NO_SPACING,
)


def checked_scan(image: MetaTensor, path: str, grid: Grid | None = None) -> MetaTensor:
    """Check dimension, size, values and geometry of ``[C,...]``; return it with the meta data of :class:`LoadScan`.

    A volume is brought to ``grid`` where there is one.
    """
    shape = tuple(image.shape[1:])
    picture = image.meta["picture"] = bool(image.meta.get("picture", False))
    if len(shape) not in (2, 3) or (image.shape[0] != 1 and not (picture and image.shape[0] == 3)):
        raise ValueError(
            f"{path}: found {image.shape[0]} channels or time points of shape {shape}; expected a picture "
            "(grey or RGB) or a 3-D volume with one value per voxel. Extract one channel or time point first."
        )
    if 0 in shape:
        raise ValueError(f"{path}: found shape {shape}, which has no pixels; expected at least 1 along each axis.")
    if not all(math.isfinite(end) for end in image.as_tensor().aminmax()):  # NaN is one of its ends
        bad = int((~torch.isfinite(image.as_tensor())).sum())
        raise ValueError(
            f"{path}: {bad} of {image.numel()} values are NaN or infinite; expected finite intensities. "
            "Replace them (for example by the background value) or leave the file out."
        )
    affine = np.asarray(image.meta["affine"], float)
    columns = np.linalg.norm(affine[:-1, :-1], axis=0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) <= 1e-9 * columns.prod():
        raise ValueError(f"{path}: its affine {affine.round(4).tolist()} is singular; repair the file's geometry.")
    image.meta["unit_range"] = picture and image.meta["unit_range"]
    image.meta.setdefault(MM_PER_UNIT, 1.0)
    image.meta.setdefault("uneven_slices", "")
    image.meta.setdefault(NO_SPACING, "")
    image.meta["scan_shape"], image.meta["scan_affine"] = np.asarray(shape), affine
    if grid is not None and not picture:
        image = small_integers(bring_to_grid(image, grid))
        shape = tuple(image.meta["scan_shape"])
    if not picture and (len(shape) == 2 or 1 in shape):
        image = as_axial_slice(image)
    for key in set(image.meta) - set(META_KEYS):
        del image.meta[key]
    return image


def small_integers(label: MetaTensor) -> MetaTensor:
    """A label map of whole numbers up to 255 as uint8, a quarter of its memory; others as they are."""
    plain = label.as_tensor()
    low, high = (float(end) for end in plain.aminmax())
    if low < 0 or high > 255 or any((plane != plane.round()).any() for plane in plain.unbind(-1)):
        return label
    return MetaTensor(plain.to(torch.uint8), meta=dict(label.meta))
