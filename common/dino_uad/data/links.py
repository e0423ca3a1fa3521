"""One file at several places: people sort pictures by linking them, and the place that says most is the file's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dino_uad.data.classes import Classes
from dino_uad.data.patterns import pattern_of
from dino_uad.data.roles import IMAGE, PASSED, Role

LISTED = "links to images that are listed already"


def keep_one_place(roles: list[Role]) -> list[Role]:
    """Pass over all places of an image but its first, as inference does."""
    return _without([links[1:] for links in _linked(roles)], roles)


def keep_the_place_that_says_most(root: Path, roles: list[Role], normal: str | Iterable[str] | None) -> list[Role]:
    """Pass over all places of an image but the one whose folders tell its split and class.

    Args:
        root: the data set's folder, for the message.
        roles: of all files.
        normal: as in :class:`dino_uad.data.classes.Classes`.

    Raises:
        ValueError: two places of an image tell different splits or classes, or one the split and another the class.
    """
    linked = _linked(roles)
    if not linked:
        return roles
    classes = Classes([role for role in roles if role.role == IMAGE], normal)
    others = []
    for links in linked:
        kept = _telling(links, classes.anomalous)
        if kept is None:
            place = pattern_of(links[0].relative.partition("/")[0])
            raise ValueError(
                f"{root}: {links[0].relative} and {links[1].relative} are one file, and their folders say different "
                "things of it (split or class); expected one place that says all. Choose with pattern, as in "
                f"--train_data#pattern '{place}*', or remove the links."
            )
        others.append([role for role in links if role is not kept])
    return _without(others, roles)


def _linked(roles: Sequence[Role]) -> list[list[Role]]:
    """The images that lie at several places, each with all of them; symbolic and hard links."""
    places: dict[tuple[int, int], list[Role]] = defaultdict(list)
    for role in roles:
        if role.role == IMAGE and role.path.exists():
            status = role.path.stat()
            places[status.st_dev, status.st_ino].append(role)
    return [links for links in places.values() if len(links) > 1]


def _telling(links: Sequence[Role], anomalous: Callable[[Role], bool | None]) -> Role | None:
    """The first place that tells all that any of them tells; None where there is none."""
    said = [(role.split, anomalous(role)) for role in links]
    known = [{facts[place] for facts in said} - {None} for place in range(2)]
    if any(len(facts) > 1 for facts in known):
        return None
    whole = tuple(next(iter(facts), None) for facts in known)
    return next((role for role, facts in zip(links, said, strict=True) if facts == whole), None)


def _without(gone: Iterable[Sequence[Role]], roles: Sequence[Role]) -> list[Role]:
    paths = {role.path for links in gone for role in links}
    return [replace(role, role=PASSED, reason=LISTED) if role.path in paths else role for role in roles]
