"""Images in formats that are not read, beside those that are to be scored: they fail by name, never in silence."""

from __future__ import annotations

from os.path import splitext

from dino_uad.data.case import Options, Understood
from dino_uad.data.roles import PASSED, Role, matches
from dino_uad.data.walk import UNREAD_PICTURES, may_be_image
from dino_uad.transforms import is_dicom

NO_SCANS = (".svg", ".stl", ".mat")
"""Drawings, surfaces, and the matrices that SPM and FSL leave beside volumes."""


def unread_images(understood: Understood, options: Options) -> list[dict]:
    """Entries of a data list for inference, which loading refuses with the reason.

    A file beside an image of its name is another form of that one (``x.webp`` of ``x.png``), and the header of a pair
    (``x.hdr``, ``x.img``) is no second image.
    """
    found = {role: _name(role) for role in understood.passed if _is_image(role, options)}
    forms = {(case.image.folders, case.image.stem.lower()) for case in understood.cases}
    pairs = {(role.folders, stem) for role, (stem, suffix) in found.items() if suffix == ".img"}
    return [
        {"image": str(role.path), "anomalous": 0, "group": role.relative}
        for role, (stem, suffix) in found.items()
        if (role.folders, stem) not in forms | (pairs if suffix == ".hdr" else set())
    ]


def _name(role: Role) -> tuple[str, str]:
    """A file's name and suffix in small letters, compression left out of both."""
    stem, suffix = splitext(role.path.name.lower().removesuffix(".gz"))
    return stem, suffix


def _is_image(role: Role, options: Options) -> bool:
    name = role.path.name.lower()
    if role.role != PASSED or not role.unread or not may_be_image(role.path) or name.endswith(NO_SCANS):
        return False
    if is_dicom(role.path):  # a report, for example
        return False
    if options.kind is not None and name.endswith(UNREAD_PICTURES) != (options.kind == "2d"):
        return False
    return matches(role.path.name, role.folders, options.pattern)
