"""Which files a reader opens for one path: many formats keep the header in one file and the values in others."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dino_uad.transforms.suffixes import ITK_SUFFIXES

HEADER_BYTES = 1 << 20
FIRST_BYTES = 4096
VALUES_FOLLOW = re.compile(rb"\ANRRD(?s:.*?)\n\r?\n|^\s*ElementDataFile\s*=\s*LOCAL\s*$", re.IGNORECASE | re.MULTILINE)
"""Headers that name no other file: there is no need to read on."""
MOST_FILES = 100_000
"""That a pattern with first and last may name: a damaged number must not fill the memory."""
DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*=|data ?file:)[ \t]*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
PAIRS = (".hdr", ".img", ".mat")  # Analyze and two-file NIfTI; SPM keeps an affine in the third


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """The file itself and those that hold its values, or all files below a folder (a DICOM series), sorted by name.

    MetaImage (``ElementDataFile``) and NRRD (``data file``) headers may name one file, list several, or give a
    pattern with first, last and step; Analyze and two-file NIfTI images are pairs. Files that do not exist are left
    out: the reader will say so.
    """
    path = Path(path)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    stem, suffix = _stem(path)
    if suffix in PAIRS:
        beside = (file for file in path.parent.iterdir() if _stem(file)[0] == stem and _stem(file)[1] in PAIRS)
        return sorted({path, *beside})
    if suffix in ITK_SUFFIXES:
        return [path, *(file for file in detached_files(path) if file.is_file())]
    return [path]


def _stem(path: Path) -> tuple[str, str]:
    """A name without and its last suffix in small letters, compression left out of both."""
    stem, suffix = os.path.splitext(re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE))
    return stem, suffix.lower()


def detached_files(header: Path) -> list[Path]:
    """The files with the values of a MetaImage or NRRD header; none where they follow it."""
    with open(header, "rb") as file:
        text = file.read(FIRST_BYTES)
        if not VALUES_FOLLOW.search(text):
            text += file.read(HEADER_BYTES)
    found = DATA_FILE.search(text)
    if not found or found[1].upper() == b"LOCAL":
        return []
    value = os.fsdecode(found[1])
    numbered = re.fullmatch(r"(.*%\d*d\S*)\s+(-?\d+)\s+(-?\d+)(?:\s+(-?\d+))?(?:\s+\d+)?", value)
    if value.upper().split()[:1] == ["LIST"]:
        names = [line.strip() for line in os.fsdecode(text[found.end() :]).splitlines()]
    elif numbered:
        first, last, step = int(numbered[2]), int(numbered[3]), int(numbered[4] or 1) or 1
        names = [numbered[1] % i for i in range(first, last + (1 if step > 0 else -1), step)[:MOST_FILES]]
    else:
        names = [value]
    return [header.parent / name for name in names if name]
