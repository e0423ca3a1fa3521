"""Names that are a person's and a visit's, a sequence's or a side's: ``sub01_pre``, ``sub01_post``, ``sub02_pre``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from dino_uad.data.words import CONTAINERS, NO_NAME, PART

FEWEST_PEOPLE = 3
MOST_VISITS = 12
SHARED = 0.8  # of the names end as somebody else's do


def without_visits(names: Sequence[str]) -> list[str]:
    """Names without an end that few of them tell apart: the person, where several have the same visits.

    The last part of the names that is not the same in all is a visit's if its values are few, no more than the people,
    if nearly all of them are several people's, and if somebody has two. People have numbers.
    """
    common = _common_end(names)
    cut = [_cut(name, common) for name in names]
    ends: dict[str, set[str]] = defaultdict(set)
    for person, end in cut:
        ends[person].add(end)
    people = Counter(end for own in ends.values() for end in own)
    few = len(people) <= min(MOST_VISITS, len(ends)) and len(ends) >= FEWEST_PEOPLE
    shared = sum(people[end] > 1 for _, end in cut) >= SHARED * len(cut)
    repeated = any(len(own) > 1 for own in ends.values())
    if few and shared and repeated and all(map(_is_person, ends)):
        return [person for person, _ in cut]
    return list(names)


def _common_end(names: Sequence[str]) -> int:
    """How many parts at their ends all names share, of several: ``flair_pp``."""
    parts = [PART.split(name) for name in names]
    count = 0
    while (
        len(parts) > 1 and all(len(own) > count + 2 for own in parts) and len({own[-1 - count] for own in parts}) == 1
    ):
        count += 1
    return count


def _cut(name: str, common: int) -> tuple[str, str]:
    """A name's start and its last part before those that all names share; no end where it has one part only."""
    places = list(PART.finditer(name))
    if len(places) <= common:
        return name, ""
    place = places[-1 - common]
    return name[: place.start()], PART.split(name[place.end() :])[0]


def _is_person(start: str) -> bool:
    """Whether a name's start may be a person's: with a number that does not count folders or images."""
    last = PART.split(start)[-1].lower()
    return any(c.isdigit() for c in start) and last.rstrip("0123456789") not in CONTAINERS | NO_NAME
