"""What lies on disk below a folder: pictures, volumes, this package's own results, and files of other kinds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dino_uad.transforms import ANNOTATION, PICTURE_SUFFIXES, VOLUME_SUFFIXES, dicom_scans, is_dicom, is_own_result

PICTURE, VOLUME, RESULT, OTHER = "picture", "volume", "result", "other"
UNREAD_PICTURES = (
    *(".gif", ".webp", ".jp2", ".j2k", ".pgm", ".ppm", ".pnm", ".pbm", ".tga", ".svg", ".heic", ".avif"),
    *(".jfif", ".jpe", ".jxl", ".svs", ".czi"),
)
UNREAD = (
    *UNREAD_PICTURES,
    *(".npy", ".npz", ".mat", ".h5", ".hdf5", ".mgz", ".mgh", ".mnc", ".img", ".hdr", ".vtk", ".vti", ".stl", ".par"),
    *(".img.gz", ".hdr.gz", ".nii.bz2", ".nii.xz", ".nii.zst"),
)
"""Suffixes of images and masks in formats that are not read: they are named, never passed over in silence."""


SYSTEM = ("__macosx", "@eadir", "__pycache__", "$recycle.bin", "system volume information", "lost+found")
"""Folders that operating systems make."""


@dataclass(frozen=True)
class Found:
    """A file, or the folder of a DICOM series, and what it is as far as its format tells."""

    path: Path
    kind: str
    says: str = ""
    """Kind of a DICOM object that is no image, in the words of the table before a fit."""

    @property
    def annotation(self) -> bool:
        """Whether it is a DICOM object that marks places in images."""
        return self.says.startswith(ANNOTATION)

    @property
    def image_format(self) -> bool:
        """Whether the file may hold an image that is not read."""
        return self.kind == OTHER and may_be_image(self.path)


def may_be_image(path: Path) -> bool:
    """Whether a file's name is that of an image in a format that is not read."""
    return path.name.lower().endswith(UNREAD)


def natural_key(text: object) -> list[tuple[int, int, str]]:
    """Sort key by which ``slice_2`` comes before ``slice_10``."""
    parts = re.split(r"(\d+)", str(text))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def walk(root: Path) -> list[Found]:
    """Everything below ``root`` in natural order, but for hidden files; links are followed, never into a loop."""
    return sorted(_below(root, ()), key=lambda found: natural_key(found.path.relative_to(root)))


def _below(folder: Path, ancestors: tuple[str, ...]) -> Iterator[Found]:
    real = os.path.realpath(folder)
    if real in ancestors:
        return
    dicom: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in SYSTEM:
            continue
        if path.is_dir():
            yield from _below(path, (*ancestors, real))
        elif path.exists() and not path.is_file():  # reading a pipe would wait for ever
            yield Found(path, OTHER, "pipes, sockets and devices")
        elif is_own_result(path):
            yield Found(path, RESULT)
        elif path.name.lower().endswith(tuple(f".{suffix}" for suffix in PICTURE_SUFFIXES)):
            yield Found(path, PICTURE)
        elif path.name.lower().endswith(VOLUME_SUFFIXES):
            yield Found(path, VOLUME)
        elif path.name.lower().endswith(".dcm") or is_dicom(path):
            dicom.append(path)
        else:
            yield Found(path, OTHER)
    if dicom:
        scans, no_images = dicom_scans(folder)
        yield from (Found(scan.path, VOLUME) for scan in scans)
        yield from (Found(path, OTHER, no_images[path]) for path in dicom if path in no_images)
