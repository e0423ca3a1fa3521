"""Tables, notes and boxes beside images: they are not read as annotations, but whoever wrote them named the images."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

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
MOST = 0.8  # share of the images whose numbers a table lists, where their names are only numbers
LONG = 5  # letters and digits of a part of a name that identifies somebody
LONGEST = 6  # columns shown

SEPARATORS = re.compile(r"[\W_]+")
CHECKSUM = re.compile(r"\b[0-9a-f]{32,}\b")
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
    folders = {folder.casefold(): image for image in images for folder in image.folders if _is_id(folder)}
    series = {image.path: image for image in images if image.volume}
    cases = {(image.path.parent, words(image.stem)[0]): image for image in images if words(image.stem)}
    starts = {key: image for image in images for name in (image.stem, *image.folders) for key in _starts(name)}
    texts = []
    for role in others:
        name, stem = role.path.name.lower(), role.path.name.partition(".")[0].casefold()
        image = named.get(role.stem.casefold()) or named.get(stem)
        called = set(words(stem)) & LABELS
        if called and (name.endswith(OPAQUE) or (name.endswith(".xlsx") and not _text(role.path))):
            return Table(role.relative, "is called as labels are")
        if name.endswith(ARRAYS) and image is not None and not image.volume:
            return Table(role.relative, f"has the name of {image.relative}")
        if name.endswith(TEXTS):
            image = image or folders.get(stem) or starts.get(_plain(stem)) or cases.get((role.path.parent, stem))
            if image is None and (called or not name.endswith(".txt")):
                image = series.get(role.path.parent)
            texts.append((role, image))
    for role, image in [text for text in texts if text[1] is not None][:SAMPLE]:
        if _tells(role.path, _text(role.path)):
            return Table(role.relative, f"goes with {image.relative}")
    keys = set(named) | {name.casefold() for image in images for name in (image.path.name, image.path.stem)}
    keys |= set(folders)
    for role, _ in [text for text in texts if text[1] is None][:SAMPLE]:
        text = _text(role.path)
        tokens = {token.casefold() for token in TOKEN.findall(text)}
        found = keys & tokens
        numbers = {key for key in found if key.isdecimal()}
        listed = len(numbers) >= MOST * len(named) and len(named) > 2 if found == numbers else bool(found)
        if not listed:
            listed = any(key in starts for token in tokens for key in _starts(token))
        if listed and _tells(role.path, text):
            columns = _columns(role.path, text)
            shown = f" (columns {', '.join(columns[:LONGEST])}{', …' if len(columns) > LONGEST else ''})"
            return Table(role.relative, f"names images{shown if columns else ''}")
    return None


def _starts(name: str) -> Iterator[str]:
    """What a name may begin with that identifies a patient or an image, without separators.

    Tables write ``CQ500-CT-1`` for ``CQ500CT1 CQ500CT1``, ``10000032`` for ``p10000032``, and ``ID_0a1_any`` for
    ``ID_0a1``.
    """
    parts = SEPARATORS.split(name.casefold())
    for end in range(1, len(parts) + 1):
        start = "".join(parts[:end])
        for key in (start, start.lstrip(ascii_lowercase)):
            if len(key) >= LONG and any(c.isdigit() for c in key):
                yield key


def _plain(name: str) -> str:
    return "".join(SEPARATORS.split(name.casefold()))


def _is_id(folder: str) -> bool:
    return any(c.isdigit() for c in folder)


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
