"""By which names a file beside images may speak of them: theirs, their folders', their patients', their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from string import ascii_lowercase
from unicodedata import normalize

from dino_uad.data.roles import Role
from dino_uad.data.words import words

MOST = 0.8  # share of the images whose numbers a table lists, where their names are only numbers
LONG = 5  # letters and digits of a part of a name that identifies somebody
FEWEST = 3  # numbers that are no accident
COUNTERS = {"epoch", "step", "iteration", "iter", "fold", "age", "slice", "slices", "frame", "width", "height", "size"}
"""Heads of columns whose numbers are no image's."""
SEPARATORS = re.compile(r"[\W_]+")
TOKEN = re.compile(r"[^\s,;:\"'<>{}\[\]()|=\\/]+")
CELL = re.compile(r'"([^"\n]+)"|([^\t\r\n;,|"]+)')
"""A cell that may be a name: in quotes it may have commas, without them spaces."""
PATH = re.compile(r"[\\/]")
NUMBER = re.compile(r"\d+")


class ImageNames:
    """The names of a data set's images, without case.

    Args:
        images: of the data set.
    """

    def __init__(self, images: Sequence[Role]) -> None:
        self._stems = {_folded(image.stem): image for image in images}
        self._folders = {_folded(folder): image for image in images for folder in image.folders if _is_id(folder)}
        self._series = {image.path: image for image in images if image.volume}
        self._cases = {(image.path.parent, words(image.stem)[0]): image for image in images if words(image.stem)}
        called = [(image, name) for image in images for name in (image.stem, *image.folders)]
        self._starts = {key: image for image, name in called for key in _starts(name)}
        files = {_folded(name) for image in images for name in (image.path.name, image.path.stem)}
        self._keys = files | set(self._stems) | set(self._folders)
        self._plain = {_plain(key) for key in self._keys if _is_id(key) and not key.isdecimal()}
        self._numbers = _numbers(images)

    def same(self, file: Role) -> Role | None:
        """The image of a file's own name."""
        return self._stems.get(_folded(file.stem)) or self._stems.get(_stem(file))

    def near(self, file: Role, in_series: bool) -> Role | None:
        """The image, or one of the patient, that a file's name or place means.

        Args:
            file: beside the images.
            in_series: whether a file within a volume's folder goes with the volume, whatever its name is.
        """
        stem = _stem(file)
        image = self._folders.get(stem) or self._starts.get(_plain(stem)) or self._cases.get((file.path.parent, stem))
        return image or (self._series.get(file.path.parent) if in_series else None)

    def is_name(self, text: str) -> bool:
        """Whether a text is an image's name, with or without its folders, or a folder's that counts."""
        return _folded(PATH.split(text.strip())[-1]) in self._keys

    def are_listed(self, text: str, rows: Sequence[Sequence[str]] = ()) -> bool:
        """Whether a text names some images, or, where their names are numbers only, most of them.

        Names may have spaces (in cells), commas (in quotes), folders before them, and other separators.

        Args:
            text: the whole file.
            rows: the cells of a table, in whose columns numbers may be those of images.
        """
        text = _folded(text)
        tokens = set(TOKEN.findall(text))
        found = self._keys & tokens
        numbers = {key for key in found if key.isdecimal()}
        if found - numbers or not self._plain.isdisjoint(map(_plain, tokens)):
            return True
        if self._are_counted(rows) if rows else FEWEST <= len(self._stems) <= len(numbers) / MOST:
            return True
        cells = (PATH.split((quoted or bare).strip())[-1] for quoted, bare in CELL.findall(text))
        if any(cell in self._keys for cell in cells if not cell.isdecimal()):
            return True
        return any(key in self._starts for token in tokens for key in _starts(token))

    def _are_counted(self, rows: Sequence[Sequence[str]]) -> bool:
        """Whether a column of a table holds most of the numbers in the images' or folders' names: 7 for ``im0007``."""
        for head, *cells in zip_longest(*rows, fillvalue=""):
            listed = {cell.lstrip("0") for cell in cells if cell.isdecimal()}
            if not set(words(head)) & COUNTERS and any(
                len(numbers & listed) >= MOST * len(numbers) for numbers in self._numbers
            ):
                return True
        return False


def _numbers(images: Sequence[Role]) -> list[set[str]]:
    """The numbers in the images' names, and those in each row of folders, where every one has exactly one."""
    named = [[image.stem for image in images], *zip(*(image.folders for image in images), strict=False)]
    found = []
    for names in named:
        numbers = [NUMBER.findall(name) for name in names]
        single = {number.lstrip("0") for several in numbers for number in several}
        if all(len(several) == 1 for several in numbers) and len(single) >= FEWEST:
            found.append(single)
    return found


def _starts(name: str) -> Iterator[str]:
    """What a name may begin with that identifies a patient or an image, without separators.

    Tables write ``CQ500-CT-1`` for ``CQ500CT1 CQ500CT1``, ``10000032`` for ``p10000032``, and ``ID_0a1_any`` for
    ``ID_0a1``.
    """
    parts = SEPARATORS.split(_folded(name))
    for end in range(1, len(parts) + 1):
        start = "".join(parts[:end])
        for key in (start, start.lstrip(ascii_lowercase)):
            if len(key) >= LONG and any(c.isdigit() for c in key):
                yield key


def _folded(text: str) -> str:
    """A text without case; accents are composed, as they are not in names that macOS wrote."""
    return normalize("NFC", text).casefold()


def _stem(file: Role) -> str:
    return _folded(file.path.name.partition(".")[0])


def _plain(name: str) -> str:
    return "".join(SEPARATORS.split(_folded(name)))


def _is_id(folder: str) -> bool:
    return any(c.isdigit() for c in folder)
