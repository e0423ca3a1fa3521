"""Labels on the grid of their image: compared by affine, brought there where the affines explain the difference."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from nibabel.affines import apply_affine
from scipy.ndimage import affine_transform

from dino_uad.transforms.nifti_geometry import box_corners, load_nifti
from dino_uad.transforms.suffixes import NIFTI_SUFFIXES
from dino_uad.transforms.units import in_millimetres, nifti_unit

logger = logging.getLogger(__name__)

HALF = 0.51  # of a voxel: what rounding, and tools that align centres instead of corners, move a grid by


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume file lie."""

    shape: tuple[int, ...]
    affine: np.ndarray
    """4x4, voxel to mm (right, anterior, superior)."""
    path: str
    stated: bool = True
    """False for a NIfTI file whose header says that its geometry is unknown."""

    @classmethod
    def of(cls, image: MetaTensor) -> Grid | None:
        """The grid of an image from ``LoadScan``; None for pictures, which have none."""
        if image.meta["picture"]:
            return None
        shape = tuple(int(side) for side in image.meta["scan_shape"])
        path = str(image.meta["filename_or_obj"])
        return cls((*shape, 1, 1)[:3], to_affine_nd(3, image.meta["scan_affine"]), path, states_geometry(path))

    @classmethod
    def of_nifti(cls, path: str) -> Grid:
        """The grid of a NIfTI file, from its header."""
        image = load_nifti(path)
        affine = in_millimetres(np.asarray(image.affine, float), nifti_unit(image))
        return cls((*image.shape, 1, 1)[:3], affine, path, states_geometry(path))

    def __str__(self) -> str:
        rows = "; ".join(" ".join(f"{value:.4g}" for value in row) for row in self.affine[:3])
        said = "" if self.stated else ", of unknown geometry by its header"
        return f"size {list(self.shape)}, affine [{rows}]{said}"


def bring_to_grid(label: MetaTensor, grid: Grid) -> MetaTensor:
    """The label ``[1,X,Y,Z]`` on the grid of its image, each voxel from the nearest one of the label's.

    A label on the same grid is returned as it is, shifts of less than half a voxel included.

    Raises:
        ValueError: the two affines do not explain how the grids differ.
    """
    path = str(label.meta["filename_or_obj"])
    shape = (*label.shape[1:], 1, 1)[:3]
    own = Grid(shape, to_affine_nd(3, np.asarray(label.meta["affine"], float)), path, states_geometry(path))
    require_explained(own, grid)
    values = label.as_tensor().reshape(own.shape).numpy()
    if not same_grid(own, grid):
        # "grid-constant": a voxel reaches half a voxel beyond its centre, at the border too.
        moved = affine_transform(
            values, _image_to_label(own, grid), output_shape=grid.shape, order=0, mode="grid-constant", cval=0
        )
        _require_inside(values, own, grid)
        logger.info("%s: brought to the grid of its image by its affine", Path(path).name)
        values = moved
    meta = dict(label.meta)
    meta["affine"] = torch.from_numpy(grid.affine.copy())
    meta["original_affine"], meta["scan_affine"] = grid.affine.copy(), grid.affine.copy()
    meta["spatial_shape"], meta["scan_shape"] = np.asarray(grid.shape), np.asarray(grid.shape)
    return MetaTensor(torch.from_numpy(values)[None], meta=meta)


def require_explained(label: Grid, image: Grid) -> None:
    """Raise ValueError, with both affines, where they do not explain how the grids of label and image differ.

    They do where both cover the same space (flips, other axes, another resolution), and where a label of another size
    covers a part of it. They do not where only one of the files states a geometry, where the label's origin is 0 (its
    tool dropped the geometry), or where equal sizes lie in different directions or along swapped axes.
    """
    if same_grid(label, image):
        return
    if label.stated != image.stated:
        reason = "one of the files states no geometry"
    elif _same_space(label, image):
        return
    elif not label.affine[:3, 3].any():
        reason = "the label's origin is 0, as where a tool drops the geometry, and it does not cover the image"
    elif label.shape == image.shape and not np.allclose(_image_to_label(label, image)[:3, :3], np.eye(3), atol=0.01):
        reason = "they are of one size and lie in different directions or spacings"
    elif label.shape != image.shape and sorted(label.shape) == sorted(image.shape):
        reason = "they have the same sides along other axes, which the affines do not explain"
    elif not _overlap(label, image):
        reason = "they do not lie at one place"
    else:
        return
    raise ValueError(_message(label, image, reason))


def same_grid(label: Grid, image: Grid) -> bool:
    """Whether voxels of equal indices lie less than half a voxel apart."""
    if label.shape != image.shape:
        return False
    corners = _corners(image.shape, 0)
    return bool(np.abs(apply_affine(_image_to_label(label, image), corners) - corners).max() < 0.5)


def states_geometry(path: str) -> bool:
    """Whether a volume file says where it lies; a NIfTI header may say that this is unknown."""
    if not path.lower().endswith(NIFTI_SUFFIXES):
        return True
    header = load_nifti(path).header
    return bool(header["sform_code"] or header["qform_code"])


def _message(label: Grid, image: Grid, reason: str) -> str:
    return (
        f"{label.path}: the label's geometry does not lay it on its image {image.path}: {reason}. "
        f"Label: {label}; image: {image}. Expected affines that agree, or that explain the difference. "
        "Save the label with the image's affine, or resample it to the image's grid"
    )


def _image_to_label(label: Grid, image: Grid) -> np.ndarray:
    """4x4 from the image's voxel indices to the label's."""
    return np.linalg.solve(label.affine, image.affine)


def _corners(shape: tuple[int, ...], beyond: float) -> np.ndarray:
    """``[8,3]`` corners of the box of all voxel centres, grown by ``beyond`` voxels."""
    return box_corners((-beyond, side - 1 + beyond) for side in shape)


def _box_in_label(label: Grid, image: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The image's box in the label's voxel indices: its lower and upper corner."""
    corners = apply_affine(_image_to_label(label, image), _corners(image.shape, 0.5))
    return corners.min(axis=0), corners.max(axis=0)


def _same_space(label: Grid, image: Grid) -> bool:
    low, high = _box_in_label(label, image)
    voxel = np.abs(_image_to_label(label, image)[:3, :3]).sum(axis=1)  # the image's voxel, in the label's
    tolerance = HALF * np.maximum(1, voxel)
    return bool((np.abs(low + 0.5) <= tolerance).all() and (np.abs(high - label.shape + 0.5) <= tolerance).all())


def _overlap(label: Grid, image: Grid) -> bool:
    low, high = _box_in_label(label, image)
    return bool((high > 0).all() and (low < np.array(label.shape) - 1).all())


def _require_inside(values: np.ndarray, label: Grid, image: Grid) -> None:
    """Raise ValueError where a marked voxel of the label lies outside of the image."""
    marked = np.argwhere(values)
    if not len(marked):
        return
    corners = box_corners(zip(marked.min(axis=0), marked.max(axis=0), strict=True))
    places = apply_affine(np.linalg.inv(_image_to_label(label, image)), corners)
    voxel = np.abs(np.linalg.inv(_image_to_label(label, image))[:3, :3]).sum(axis=1)
    beyond = np.maximum(-0.5 - places, places - (np.array(image.shape) - 0.5)) / np.maximum(1, voxel)
    if beyond.max() > HALF:
        raise ValueError(_message(label, image, "marked voxels lie outside of the image"))
