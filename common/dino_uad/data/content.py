"""What the values of a file say: a few values only, as masks have, or one value, as an image without content has."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from dino_uad.transforms import LoadScan, UnitPILReader

PICTURE_VALUES = 3
VOLUME_VALUES = 32
DENSE = 0.3  # bytes a pixel; a compressed file of a few values takes less, and only those are decoded
COMPRESSED = (".png", ".jpg", ".jpeg", ".nii.gz", ".tif", ".tiff", ".nrrd")
JPEG_NOISE = 16  # of 255; how far compression moves the values of a mask


def count_values(path: Path) -> int | None:
    """How many values an image has if they are as few as a mask's: 3 in a picture, 32 whole numbers in a volume.

    A JPEG whose pixels lie near two values counts as having two. Files that are large for their size in pixels are not
    decoded, nor are series of DICOM files.

    Returns:
        The number; None where there are more values, or the file cannot be read (whoever loads it says why).
    """
    try:
        status = os.stat(path)
        return None if path.is_dir() else _count(path, status.st_size, status.st_mtime_ns)
    except Exception:
        return None


@cache
def _count(path: Path, size: int, changed: int) -> int | None:
    name = path.name.lower()
    shape = image_size(path)
    if shape is None or (name.endswith(COMPRESSED) and size > 512 + DENSE * np.prod(shape)):
        return None
    if UnitPILReader().verify_suffix(name):
        return _count_in_picture(path)
    if name.endswith((".nii", ".nii.gz")) and len(shape) > 2:  # one slice before all: an image is known by it
        middle = np.asanyarray(nib.load(path).dataobj[..., shape[-1] // 2])
        if len(np.unique(middle)) > VOLUME_VALUES:
            return None
    values = np.asarray(_loader()(path))
    levels = np.unique(values)
    whole = len(levels) <= VOLUME_VALUES and (levels == np.rint(levels)).all()
    return len(levels) if whole and values.size > 8 * len(levels) else None


@cache
def _loader() -> LoadScan:
    return LoadScan()  # once: making one asks for every reader that MONAI knows


def _count_in_picture(path: Path) -> int | None:
    with Image.open(path) as picture:
        values = np.asarray(picture if picture.mode in ("1", "L", "I", "F", "I;16") else picture.convert("RGB"))
    if values.ndim == 3:
        if not (values == values[..., :1]).all():
            return None
        values = values[..., 0]
    levels = np.unique(values).astype(float)
    if path.suffix.lower() in (".jpg", ".jpeg") and _two_clusters(levels):
        return 2
    return len(levels) if len(levels) <= PICTURE_VALUES else None


def _two_clusters(levels: np.ndarray) -> bool:
    low, high = levels[0], levels[-1]
    near = (levels <= low + JPEG_NOISE) | (levels >= high - JPEG_NOISE)
    return bool(high - low > 4 * JPEG_NOISE and near.all())


def size_or_none(path: Path) -> tuple[int, ...] | None:
    """:func:`image_size`, None too where the file cannot be read."""
    try:
        return image_size(path)
    except Exception:
        return None


def image_size(path: Path) -> tuple[int, ...] | None:
    """A picture's or NIfTI volume's size, or that of another volume, which is read for it; None for a DICOM series."""
    if path.is_dir():
        return None
    name = path.name.lower()
    if UnitPILReader().verify_suffix(name):
        with Image.open(path) as picture:
            return picture.size
    if name.endswith((".nii", ".nii.gz")):
        return tuple(int(side) for side in nib.load(path).shape)
    if name.endswith((".nrrd", ".nhdr", ".mha", ".mhd")):
        import itk

        reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        return tuple(int(reader.GetDimensions(axis)) for axis in range(reader.GetNumberOfDimensions()))
    return None
