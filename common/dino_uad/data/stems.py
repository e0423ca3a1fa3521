"""Classes in what names have before or behind their numbers: ``HC01`` beside ``PD01``, ``x_0`` beside ``y_1``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from dino_uad.data.patterns import pattern_of
from dino_uad.data.words import ABBREVIATED, NO, NORMAL_SHORT, say_anomalous, say_normal, words

NAME_LETTERS = 4  # shorter words of a file's name (dr, ok) may be anything
MOST_CLASSES = 8
FEWEST_NAMES = 4
LABEL_END = re.compile(r"^(.+)[ _.\-]([01])$")


def name_words(stem: str) -> tuple[str, ...]:
    """The words of a file's name but for short ones, that may be anything; numbers keep their neighbours apart."""
    return tuple(word for word in words(stem) if len(word) >= NAME_LETTERS or word in NO or word.isdecimal())


def letters(name: str) -> tuple[str, ...]:
    """The words of a name without the numbers at their ends: ``sub HC`` of ``sub-HC01``."""
    return tuple(filter(None, (word.rstrip("0123456789") for word in words(name))))


def classes_in_stems(names: Iterable[str]) -> dict[str, int]:
    """Patterns of numbered names that a class tells apart, with how many names each has; empty where nothing does.

    The words before the numbers, less those of all names, are few, each counts several names, and one of them is a word
    of a class: ``HC01``, ``HC02``, ``PD01``, ``PD02``. The first pattern is a normal one where a word says so.
    """
    members: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        members[letters(name)].append(name)
    common = set.intersection(*map(set, members)) if members else set()
    rests = {stem: tuple(word for word in stem if word not in common) for stem in members}
    if not 2 <= len(members) <= MOST_CLASSES or min(map(len, members.values())) < 2:
        return {}
    if not any(_says_class(rest) for rest in rests.values()):
        return {}
    ordered = sorted(members, key=lambda stem: not _says_normal(rests[stem]))
    return {numbered_pattern(members[stem][0]): len(members[stem]) for stem in ordered}


def classes_in_ends(stems: Sequence[str]) -> dict[str, int]:
    """The patterns ``*_0.*`` and ``*_1.*`` where each name ends in one of them and none in both: a label."""
    ends = [match for stem in stems if (match := LABEL_END.match(stem))]
    counts = {end: sum(match[2] == end for match in ends) for end in "01"}
    single = len({match[1] for match in ends}) == len(ends) == len(stems) >= FEWEST_NAMES
    if not single or min(counts.values()) < 2:
        return {}
    return {f"*{ends[0][0][-2]}{end}.*": count for end, count in counts.items()}


def _says_class(rest: tuple[str, ...]) -> bool:
    long = tuple(word for word in rest if len(word) >= NAME_LETTERS or word in NO)
    return (len(rest) == 1 and rest[0] in ABBREVIATED | NORMAL_SHORT) or say_normal(long) or say_anomalous(long)


def _says_normal(rest: tuple[str, ...]) -> bool:
    return say_normal(rest) or (len(rest) == 1 and rest[0] in NORMAL_SHORT)


def numbered_pattern(name: str) -> str:
    """A pattern of a name and of all that differ from it by numbers."""
    return re.sub(r"\d+|$", "*", pattern_of(name)).replace("**", "*")
