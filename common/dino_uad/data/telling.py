"""Whether a text beside images, a table, a list or JSON, says something of them that may be their class."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from dino_uad.data.image_names import ImageNames
from dino_uad.data.words import DESCRIPTIVE, DISEASES, PEOPLE, is_anomalous, is_normal, words

LARGEST = 1 << 25  # bytes read of one file
ROWS = 200_000  # looked at of a table
FEW_VALUES = 3  # of a column that is a label, whatever its head says
CHECKSUM = re.compile(r"\b[0-9a-f]{32,}\b")
TABLES = (".csv", ".tsv", ".tab")
OWN_COLUMNS, OWN_KEY = {"image_score", "voxel_x"}, re.compile('"dino[_-]uad"')
"""Columns of the tables that inference writes, and the key of its JSON files: not the data set's."""
MARKED = re.compile(
    r'"(?:shapes|annotations?|regions|objects|bbox(?:es)?|boxes|polygons?|segmentation|labels?|class(?:es)?|'
    r'categor(?:y|ies)|findings?|diagnos[ei]s|disease|pathology|target)"\s*:',
    re.IGNORECASE,
)
"""Keys of a JSON file that says something of its images; the side files of BIDS have none."""
KEY = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:(?!\s*(?:\{|""))')
"""A JSON key whose value is neither an object nor empty, as a checksum is that was cut out."""
TOLD_BY_KEYS = DISEASES - {"dr", "mass", "masses", "stone", "stones", "defect", "defects"}
TOLD_BY_KEYS |= {"group", "dx", "normal", "abnormal", "healthy", "sick", "diseased", "pathological", "severity"}


def read_text(path: Path) -> str:
    """A file's text in UTF-8, UTF-16 with a mark, or else Windows' Latin alphabet; that of an Excel book is its XML."""
    try:
        if path.suffix.lower() == ".xlsx":
            with zipfile.ZipFile(path) as book:
                return " ".join(_parts(book))
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            return _decoded(file.read(LARGEST))
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return ""


def _parts(book: zipfile.ZipFile) -> Iterator[str]:
    """The texts in an Excel book, together no longer than :data:`LARGEST`, however far they would expand."""
    left = LARGEST
    for name in book.namelist():
        if name.endswith(".xml") and left:
            with book.open(name) as part:
                text = part.read(left).decode("utf-8", "replace")
            left -= len(text)
            yield text


def tells(path: Path, folders: tuple[str, ...], text: str, names: ImageNames) -> bool:
    """Whether a file that names images says something of them: in its own name, its columns, keys or lines."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    rows = rows_of(path, text)
    if OWN_KEY.search(text) if suffix == ".json" else rows and OWN_COLUMNS & set(rows[0]):
        return False
    if any(is_normal(name) or is_anomalous(name) for name in (path.name.partition(".")[0], *folders)):
        return True  # a list of the ill
    if suffix in (".json", ".jsonl"):
        return _keys_tell(text, names)
    if rows:
        return _columns_tell(rows, names)
    if suffix not in (".txt", ".lst", ".list"):
        return True
    lines = (line.strip() for line in CHECKSUM.sub("", text).splitlines())
    return any((len(line.split()) > 1 or "," in line) and not names.is_name(line) for line in lines)


def rows_of(path: Path, text: str) -> list[list[str]]:
    """The cells of the first rows of a CSV or TSV file, the heads first; empty for others."""
    if not path.name.lower().removesuffix(".gz").endswith(TABLES):
        return []
    lines = text.splitlines()[:ROWS]
    mark = max("\t;,", key="\n".join(lines[:10]).count)
    try:
        rows = list(csv.reader(lines, delimiter=mark))
    except csv.Error:
        rows = [line.split(mark) for line in lines]
    return [[cell.strip(" \"'\r") for cell in row] for row in rows if row]


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:  # the last letter may be cut
        return codecs.getincrementaldecoder("utf-8-sig")().decode(data)
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _columns_tell(rows: list[list[str]], names: ImageNames) -> bool:
    head, *body = rows
    if any(map(names.is_name, head)):  # no heads
        return len(head) > 1
    if any(set(words(column)) - DESCRIPTIVE for column in head) or any(len(row) > len(head) for row in body):
        return True
    for place, column in enumerate(head):
        values = [row[place] for row in body if len(row) > place]
        if set(words(column)) & PEOPLE and 1 < len(set(values)) <= FEW_VALUES < len(values):
            return True  # case: 0 or 1
    return False


def _keys_tell(text: str, names: ImageNames) -> bool:
    if MARKED.search(text):
        return True
    keys = (match[1] for match in KEY.finditer(CHECKSUM.sub("", text)))
    return any(names.is_name(key) or set(words(key)) & TOLD_BY_KEYS for key in keys)
