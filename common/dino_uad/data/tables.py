"""Tables, notes and boxes beside images: they are not read as annotations, but whoever wrote them named the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dino_uad.data.image_names import ImageNames
from dino_uad.data.roles import Role
from dino_uad.data.suffixes import ARRAYS, OPAQUE, PROGRAMS, TEXTS
from dino_uad.data.telling import read_text, rows_of, tells
from dino_uad.data.words import FINDINGS, IMAGES, MASKS, ORGANS, PEOPLE, QUALIFIERS, SPLIT_OF, words

LABELS = MASKS | FINDINGS - PEOPLE | {"diagnosis", "diagnoses", "class", "classes"}
LABELS |= {"target", "targets", "y", "report", "reports", "train", "metadata"}
LABEL_FILES = {"label", "labels", "lbl", "gt", "groundtruth", "mask", "masks", "annotation", "annotations", "annot"}
LABEL_FILES |= {"diagnosis", "diagnoses", "class", "classes", "target", "targets", "segmentation", "segmentations"}
"""Whole names of files that hold labels, whatever their suffix is: ``labels.html``, ``test_labels.sav``."""
SAMPLE = 2000  # files that are looked into
LONGEST = 6  # columns shown


@dataclass(frozen=True)
class Table:
    """A file that may tell classes."""

    path: str
    """Below the data set's folder."""
    says: str
    """End of a message: how it belongs to the images, such as ``goes with a.png``."""


def table_of(images: Sequence[Role], others: Sequence[Role]) -> Table | None:
    """The first file among ``others`` that names some of ``images`` and says more of them than who and where.

    It has an image's name (``x1.json`` beside ``x1.jpg``), or lists names of images, their folders or numbers. A list
    of names alone, columns such as age and sex, and JSON files without classes or shapes tell nothing.
    """
    names = ImageNames(images)
    beside, apart = [], []
    for role in others:
        name, image = role.path.name.lower(), names.same(role)
        called = _called(role)
        if _is_closed(role, called):
            return Table(role.relative, "is called as labels are")
        if name.endswith(ARRAYS) and image is not None and not image.volume:
            return Table(role.relative, f"has the name of {image.relative}")
        if name.endswith(TEXTS):
            image = image or names.near(role, in_series=called or not name.endswith(".txt"))
            if image is None:
                apart.append(role)
            else:
                beside.append((role, image))
    for role, image in beside[:SAMPLE]:
        if tells(role.path, role.folders, read_text(role.path), names):
            return Table(role.relative, f"goes with {image.relative}")
    for role in sorted(apart, key=lambda role: (not _called(role), len(role.folders)))[:SAMPLE]:
        text = read_text(role.path)
        rows = rows_of(role.path, text)
        if names.are_listed(text, rows) and tells(role.path, role.folders, text, names):
            return Table(role.relative, f"names images{_shown(rows)}")
    return None


def _called(role: Role) -> bool:
    return bool(set(words(role.path.name.partition(".")[0])) & LABELS)


def _is_closed(role: Role, called: bool) -> bool:
    """Whether a file cannot be looked into, and its name says labels: with a usual suffix, or nothing but that."""
    name = role.path.name.lower()
    if called and (name.endswith(OPAQUE) or (name.endswith(".xlsx") and not read_text(role.path))):
        return True
    if name.endswith((*TEXTS, *PROGRAMS)) or "." not in name:
        return False
    said = {word for word in words(name.partition(".")[0]) if not word.isdecimal()}
    return bool(said & LABEL_FILES) and said <= LABELS | QUALIFIERS | ORGANS | IMAGES | SPLIT_OF.keys()


def _shown(rows: Sequence[Sequence[str]]) -> str:
    columns = rows[0] if rows else ()
    more = ", …" if len(columns) > LONGEST else ""
    return f" (columns {', '.join(columns[:LONGEST])}{more})" if columns else ""
