"""Tables, notes and boxes beside images: they are not read as annotations, but whoever wrote them named the images."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dino_uad.data.roles import Role
from dino_uad.data.words import DESCRIPTIVE, words

TEXTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".xls", ".xlsx")
ARRAYS = (".mat", ".npy", ".npz", ".h5", ".hdf5", ".roi", ".geojson")
"""Beside a picture and of its name, they hold its annotation; beside volumes affines and the like."""
SAMPLE = 50  # files that are looked into
LARGEST = 1 << 25  # bytes read of one
MOST = 0.8  # share of the images whose numbers a table lists, where their names are only numbers
LONGEST = 6  # columns shown

TOKEN = re.compile(r"[^\s,;:\"'<>{}\[\]()|=\\/]+")
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
    named = {image.stem.casefold(): image for image in images}
    arrays = [role for role in others if role.path.name.lower().endswith(ARRAYS)]
    for role in arrays:
        image = named.get(role.stem.casefold())
        if image is not None and not image.volume:
            return Table(role.relative, f"has the name of {image.relative}")
    texts = [role for role in others if role.path.name.lower().endswith(TEXTS)]
    beside = [role for role in texts if role.stem.casefold() in named]
    for role in beside[:SAMPLE]:
        text = _text(role.path)
        if _tells(role.path, text):
            return Table(role.relative, f"has the name of {named[role.stem.casefold()].relative}")
    keys = set(named) | {name.casefold() for image in images for name in (image.path.name, image.path.stem)}
    keys |= {folder.casefold() for image in images for folder in image.folders if any(c.isdigit() for c in folder)}
    for role in [role for role in texts if role not in beside][:SAMPLE]:
        text = _text(role.path)
        found = keys & {token.casefold() for token in TOKEN.findall(text)}
        numbers = {key for key in found if key.isdecimal()}
        listed = len(numbers) >= MOST * len(named) and len(named) > 2 if found == numbers else bool(found)
        if listed and _tells(role.path, text):
            columns = _columns(role.path, text)
            shown = f" (columns {', '.join(columns[:LONGEST])}{', …' if len(columns) > LONGEST else ''})"
            return Table(role.relative, f"names images{shown if columns else ''}")
    return None


def _text(path: Path) -> str:
    try:
        if path.suffix.lower() == ".xlsx":
            with zipfile.ZipFile(path) as book:
                parts = [name for name in book.namelist() if name.endswith(".xml")]
                return " ".join(book.read(name).decode("utf-8", "replace") for name in parts)[:LARGEST]
        with open(path, "rb") as file:
            return file.read(LARGEST).decode("utf-8", "replace")
    except (OSError, zipfile.BadZipFile):
        return ""


def _tells(path: Path, text: str) -> bool:
    """Whether a file that names images says something of them."""
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl"):
        return bool(MARKED.search(text)) and not OWN_KEY.search(text)
    if columns := _columns(path, text):
        return not OWN_COLUMNS & set(columns) and any(set(words(column)) - DESCRIPTIVE for column in columns)
    return suffix != ".txt" or any(len(line.split()) > 1 or "," in line for line in text.splitlines())


def _columns(path: Path, text: str) -> list[str]:
    """The heads of the columns of a CSV or TSV file."""
    if path.suffix.lower() not in (".csv", ".tsv"):
        return []
    head = text.lstrip("\ufeff").partition("\n")[0]
    mark = max("\t;,", key=head.count)
    return [cell.strip(" \"'\r") for cell in head.split(mark)]
