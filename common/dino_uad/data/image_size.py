"""How large an image is, by its header."""

from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib

from dino_uad.transforms import (
    NIFTI_SUFFIXES,
    VOLUME_SUFFIXES,
    UnitPILReader,
    itk_header,
    opened,
    stored_size,
)

logger = logging.getLogger(__name__)


def size_of(path: Path) -> tuple[int, ...] | None:
    """Columns and rows of a picture, or the shape of a volume; None of a DICOM series, or where nothing is known."""
    if path.is_dir():
        return None
    name = path.name.lower()
    if UnitPILReader().verify_suffix(name):
        with opened(path) as picture:
            return stored_size(picture)
    if name.endswith(NIFTI_SUFFIXES):
        return tuple(int(side) for side in nib.load(path).shape)
    if name.endswith(VOLUME_SUFFIXES):
        header = itk_header(path)
        return tuple(int(header.GetDimensions(axis)) for axis in range(header.GetNumberOfDimensions()))
    return None


def size_or_none(path: Path) -> tuple[int, ...] | None:
    """:func:`size_of`, None too where the file cannot be read."""
    try:
        return size_of(path)
    except Exception:  # decoders raise what they like
        logger.debug("%s: its size cannot be read", path, exc_info=True)
        return None
