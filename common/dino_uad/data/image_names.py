"""By which names a file beside images may speak of them: theirs, their folders', their patients', their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import ascii_lowercase

from dino_uad.data.roles import Role
from dino_uad.data.words import words

MOST = 0.8  # share of the images whose numbers a table lists, where their names are only numbers
LONG = 5  # letters and digits of a part of a name that identifies somebody
SEPARATORS = re.compile(r"[\W_]+")
TOKEN = re.compile(r"[^\s,;:\"'<>{}\[\]()|=\\/]+")


class ImageNames:
    """The names of a data set's images, without case.

    Args:
        images: of the data set.
    """

    def __init__(self, images: Sequence[Role]) -> None:
        self._stems = {image.stem.casefold(): image for image in images}
        self._folders = {folder.casefold(): image for image in images for folder in image.folders if _is_id(folder)}
        self._series = {image.path: image for image in images if image.volume}
        self._cases = {(image.path.parent, words(image.stem)[0]): image for image in images if words(image.stem)}
        called = ((image, name) for image in images for name in (image.stem, *image.folders))
        self._starts = {key: image for image, name in called for key in _starts(name)}
        files = {name.casefold() for image in images for name in (image.path.name, image.path.stem)}
        self._keys = files | set(self._stems) | set(self._folders)

    def same(self, file: Role) -> Role | None:
        """The image of a file's own name."""
        return self._stems.get(file.stem.casefold()) or self._stems.get(_stem(file))

    def near(self, file: Role, in_series: bool) -> Role | None:
        """The image, or one of the patient, that a file's name or place means.

        Args:
            file: beside the images.
            in_series: whether a file within a volume's folder goes with the volume, whatever its name is.
        """
        stem = _stem(file)
        image = self._folders.get(stem) or self._starts.get(_plain(stem)) or self._cases.get((file.path.parent, stem))
        return image or (self._series.get(file.path.parent) if in_series else None)

    def are_listed(self, text: str) -> bool:
        """Whether a text names some images, or, where their names are numbers only, most of them."""
        tokens = {token.casefold() for token in TOKEN.findall(text)}
        found = self._keys & tokens
        numbers = {key for key in found if key.isdecimal()}
        if found - numbers:
            return True
        if numbers and len(numbers) >= MOST * len(self._stems) and len(self._stems) > 2:
            return True
        return any(key in self._starts for token in tokens for key in _starts(token))


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


def _stem(file: Role) -> str:
    return file.path.name.partition(".")[0].casefold()


def _plain(name: str) -> str:
    return "".join(SEPARATORS.split(name.casefold()))


def _is_id(folder: str) -> bool:
    return any(c.isdigit() for c in folder)
