"""The same bytes under several names: copies stay in one drawn split, and those that folders divide are told of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dino_uad.data.case import Case
from dino_uad.data.content import count_values
from dino_uad.digests import digest_file

CHUNK = 4096  # bytes
FEWEST = 3  # groups, to draw three splits from
MOST = 0.5  # of the groups: what more of them have is no copy of anybody's image, but a template


def same_file_in_two_splits(cases: Sequence[Case]) -> list[str]:
    """A note where the same bytes lie in two splits: an evaluation on them is no evaluation."""
    same = _same(cases, lambda case: case.split)
    if not same:
        return []
    one = same[0][0]
    other = next(case for case in same[0] if case.split != one.split)
    count = sum(len(group) - 1 for group in same)
    return [f"{count} images are in two splits (such as {one.image.relative} and {other.image.relative})"]


def join_copies(cases: list[Case]) -> tuple[list[Case], list[str]]:
    """The cases with one group for all whose images are copies of each other, and a note for a person.

    Images of one value are nobody's, and a file that most groups have joins none. Where too few groups to draw from
    would be left, all stay as they are.
    """
    total = len({case.group for case in cases})
    same = [
        group
        for group in _same(cases, lambda case: case.group)
        if len({case.group for case in group}) <= max(2, MOST * total) and count_values(group[0].image.path) != 1
    ]
    joined = _joined([{case.group for case in group} for group in same])
    kept = [replace(case, group=joined.get(case.group, case.group)) for case in cases]
    if not same or len({case.group for case in kept}) < min(FEWEST, total):
        return cases, []
    one, other, *_ = same[0]
    count = sum(len(group) - 1 for group in same)
    return kept, [
        f"{count} images are copies of others (such as {one.image.relative} and {other.image.relative}); copies stay "
        "in one split"
    ]


def _joined(sets: Sequence[set[str]]) -> dict[str, str]:
    """Map each name to one name for all that the sets connect with it."""
    name_of: dict[str, str] = {}
    for names in sets:
        known = names | {name_of.get(name, name) for name in names}
        first = min(known)
        name_of |= {name: first for name, old in name_of.items() if old in known}
        name_of |= dict.fromkeys(known, first)
    return name_of


def _same(cases: Sequence[Case], differ: Callable[[Case], object]) -> list[list[Case]]:
    """Cases of equal bytes, those among them of which ``differ`` gives several values."""
    same: list[list[Case]] = [[case for case in cases if case.image.path.is_file()]]
    for key in (_size, _middle, digest_file):  # the cheap ones first; the whole file is read of hardly any
        same = [group for alike in same for group in _grouped(alike, key) if len(set(map(differ, group))) > 1]
    return same


def _grouped(cases: Sequence[Case], key: Callable[[Path], object]) -> list[list[Case]]:
    groups: dict[object, list[Case]] = defaultdict(list)
    for case in cases:
        groups[key(case.image.path)].append(case)
    return list(groups.values())


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(_size(path) // 2)
        return file.read(CHUNK)
