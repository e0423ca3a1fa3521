"""How the files that are read as images end, in lower case."""

from __future__ import annotations

from pathlib import Path

PICTURE_SUFFIXES = ("png", "jpg", "jpeg", "bmp", "tif", "tiff")
NIFTI_SUFFIXES = (".nii.gz", ".nii")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES)


def image_name(path: Path) -> str:
    """The name of an image without its suffix (``.nii.gz`` is one); that of a folder (a DICOM series) is whole."""
    for suffix in VOLUME_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name if path.is_dir() else path.stem
