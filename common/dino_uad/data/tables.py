"""Tables, notes and boxes beside images: they are not read as annotations, but whoever wrote them named the images."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dino_uad.data.image_names import ImageNames
from dino_uad.data.roles import Role
from dino_uad.data.words import DESCRIPTIVE, FINDINGS, MASKS, words

TEXTS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".json", ".jsonl", ".xml", ".xls", ".xlsx")
ARRAYS = (".mat", ".npy", ".npz", ".h5", ".hdf5", ".roi", ".geojson")
"""Beside a picture and of its name, they hold its annotation; beside volumes affines and the like."""
OPAQUE = (
    *(".pkl", ".pickle", ".pt", ".pth", ".parquet", ".feather", ".db", ".sqlite", ".sqlite3", ".xls", ".ods", ".zip"),
    *(".tar", ".tar.gz", ".tgz", ".7z", ".rar", *ARRAYS),
)
"""Not looked into: what their names say must do."""
LABELS = MASKS | FINDINGS - {"patient", "patients", "case", "cases"} | {"diagnosis", "diagnoses", "class", "classes"}
LABELS |= {"target", "targets", "y", "report", "reports", "train", "metadata"}
SAMPLE = 50  # files that are looked into
LARGEST = 1 << 25  # bytes read of one
LONGEST = 6  # columns shown

CHECKSUM = re.compile(r"\b[0-9a-f]{32,}\b")
OWN_COLUMNS, OWN_KEY = {"image_score", "voxel_x"}, re.compile('"dino[_-]uad"')
"""In the tables that inference writes, and in the versions of its JSON files."""
MARKED = re.compile(
    r'"(?:shapes|annotations?|regions|objects|bbox(?:es)?|boxes|polygons?|segmentation|labels?|class(?:es)?|'
    r'categor(?:y|ies)|findings?|diagnos[ei]s|disease|pathology|target)"\s*:',
    re.IGNORECASE,
)
"""Keys of a JSON file that says something of its images; the side files of BIDS have none."""


@dataclass(frozen=True)
class Table:
    """A file that may tell classes."""

    path: str
    """Below the data set's folder."""
    says: str
    """What it names, for a message."""


def table_of(images: Sequence[Role], others: Sequence[Role]) -> Table | None:
    """The first file among ``others`` that names some of ``images`` and says more of them than who and where.

    It has an image's name (``x1.json`` beside ``x1.jpg``), or lists names of images, their folders or numbers. A list
    of names alone, columns such as age and sex, and JSON files without classes or shapes tell nothing.
    """
    names = ImageNames(images)
    beside, apart = [], []
    for role in others:
        name, image = role.path.name.lower(), names.same(role)
        called = bool(set(words(name.partition(".")[0])) & LABELS)
        if called and (name.endswith(OPAQUE) or (name.endswith(".xlsx") and not _text(role.path))):
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
        if _tells(role.path, _text(role.path)):
            return Table(role.relative, f"goes with {image.relative}")
    for role in apart[:SAMPLE]:
        text = _text(role.path)
        if names.are_listed(text) and _tells(role.path, text):
            return Table(role.relative, f"names images{_shown(_columns(role.path, text))}")
    return None


def _text(path: Path) -> str:
    try:
        if path.suffix.lower() == ".xlsx":
            with zipfile.ZipFile(path) as book:
                parts = [name for name in book.namelist() if name.endswith(".xml")]
                return " ".join(book.read(name).decode("utf-8", "replace") for name in parts)[:LARGEST]
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            return file.read(LARGEST).decode("utf-8", "replace")
    except (OSError, EOFError, zipfile.BadZipFile):
        return ""


def _tells(path: Path, text: str) -> bool:
    """Whether a file that names images says something of them."""
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl"):
        return bool(MARKED.search(text)) and not OWN_KEY.search(text)
    if columns := _columns(path, text):
        return not OWN_COLUMNS & set(columns) and any(set(words(column)) - DESCRIPTIVE for column in columns)
    if suffix != ".txt":
        return True
    return any(len(line.split()) > 1 or "," in line for line in CHECKSUM.sub("", text).splitlines())


def _columns(path: Path, text: str) -> list[str]:
    """The heads of the columns of a CSV or TSV file."""
    if not path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv")):
        return []
    head = text.lstrip("\ufeff").partition("\n")[0]
    mark = max("\t;,", key=head.count)
    return [cell.strip(" \"'\r") for cell in head.split(mark)]


def _shown(columns: Sequence[str]) -> str:
    more = ", …" if len(columns) > LONGEST else ""
    return f" (columns {', '.join(columns[:LONGEST])}{more})" if columns else ""
