"""Parts of names that several images share while the rest differs: a patient's number that no word calls so."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from dino_uad.data.words import CONTAINERS, GRADES, NO_NAME, PART

FEWEST = 3
LONG = 6  # letters and digits of what is somebody's identifier, and no counter
CROSSED = 0.2  # of the names whose rest others have, too: numbers that count, as of slices, and no patient's own
DAY = re.compile(r"(?:(?:19|20)\d\d|(?:19|20)?\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{2,})?)")
"""A year, or a day with or without a time."""


def without_additions(names: Sequence[str]) -> list[str]:
    """Names that go on where another one ends are of its patient: ``img1_sharpened`` beside ``img1``."""
    whole = {name for name in names if any(c.isdigit() for c in name)}
    return [next((start for start in _starts(name) if start in whole), name) for name in names]


def shared_parts(names: Sequence[str]) -> list[str]:
    """The patients of names that are all different, by the first part that looks like a number of somebody's own.

    Several names share it, and it has digits. What follows is each image's own (``10006_1459541791``), or the part is
    too long for a counter; where a part before differs, it must be long.
    """
    parts = [PART.split(name) for name in names]
    first = True
    for place in range(min(map(len, parts), default=0)):
        values = [own[place] for own in parts]
        several = len(set(values))
        if FEWEST <= several < len(names) and all(map(_may_be_somebodys, values)):
            long = all(len(value) >= LONG and not value.startswith("0") for value in values)
            if long or (first and not _is_crossed(own[place + 1 :] for own in parts)):
                return values
        first = first and several == 1
    return list(names)


def shared_start(names: Sequence[str]) -> tuple[str, ...]:
    """Two names of those, half or more, whose first differing number others share; () where most have their own."""
    starts: dict[str, list[str]] = defaultdict(list)
    parts = [PART.split(name) for name in names]
    common = set.intersection(*map(set, parts)) if parts else set()
    for name, own in zip(names, parts, strict=True):
        end = next((k for k, part in enumerate(own) if part not in common and any(c.isdigit() for c in part)), len(own))
        if not _counts_folders("".join(own[end : end + 1])):
            starts["_".join(own[: end + 1])].append(name)
    several = [own for own in starts.values() if len(own) > 1]
    return tuple(several[0][:2]) if several and 2 * sum(map(len, several)) >= len(names) else ()


def _starts(name: str) -> list[str]:
    return [name[: place.start()] for place in PART.finditer(name)]


def _may_be_somebodys(part: str) -> bool:
    return any(c.isdigit() for c in part) and not DAY.fullmatch(part) and not _counts_folders(part)


def _counts_folders(part: str) -> bool:
    return part.lower().rstrip("0123456789") in (CONTAINERS | GRADES | NO_NAME)


def _is_crossed(rests: Iterable[Sequence[str]]) -> bool:
    """Whether what follows a part is the same for several images, as it is where both count something."""
    count = Counter(map(tuple, rests))
    return sum(number for number in count.values() if number > 1) > CROSSED * count.total()
