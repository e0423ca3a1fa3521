"""What a file name must lead to before anything is read: known by its ending or its content, there, and not empty."""

from __future__ import annotations

import os
from pathlib import Path

from dino_uad.transforms.dicom import is_dicom
from dino_uad.transforms.picture_reader import UnitPILReader
from dino_uad.transforms.suffixes import NIFTI_SUFFIXES, VOLUME_SUFFIXES

EXPECTED = "a picture (PNG, JPEG, BMP, TIFF) or a volume (NIfTI, NRRD, MHA/MHD, a DICOM file or series folder)"


def check_path(filename: str | os.PathLike) -> str:
    """Return the path as a string; raise when it does not exist, is empty or is of no known type."""
    if not isinstance(filename, str | os.PathLike):
        raise ValueError(f"expected one file name, found {type(filename).__name__}: {str(filename)[:80]!r}")
    if not os.fspath(filename):  # MONAI Label hands one on for an image that it does not have; as a path it is "."
        raise ValueError(f"found an empty file name; expected that of {EXPECTED}. Check which image was asked for.")
    path = Path(os.path.expanduser(filename))
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder. Expected {EXPECTED}; check the path.")
    if path.is_dir():
        return str(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty (0 bytes). Expected {EXPECTED}. Copy or export it again.")
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        _check_compression(path, name)
    known = UnitPILReader().verify_suffix(name) or name.endswith((*VOLUME_SUFFIXES, ".dcm"))
    if not known and not is_dicom(path):
        raise ValueError(f"{path}: not a supported file type. Expected {EXPECTED}. Convert it.")
    return str(path)


def _check_compression(path: Path, name: str) -> None:
    """Raise ValueError where a NIfTI file is compressed and its name says that it is not, or the reverse."""
    with open(path, "rb") as file:
        head = file.read(4)
    if head[:2] == b"\x1f\x8b" and not name.endswith(".gz"):
        found, ending = "compressed (gzip)", ".nii.gz"
    elif {int.from_bytes(head, order) for order in ("little", "big")} & {348, 540} and name.endswith(".gz"):
        found, ending = "not compressed", ".nii"
    else:
        return
    raise ValueError(f"{path}: the file is {found}, its name says otherwise. Let its name end with {ending}.")
