"""Shell patterns that users give: what they match, that they match something, and which one means a given name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch

NONE = "none"
"""The pattern that chooses no mask on purpose."""
SPECIAL = re.compile(r"[\[\]*?,'\"!$@%#&`\\]")
"""Characters that are special in patterns, lists, shells or configs."""


def fits(text: str, pattern: str) -> bool:
    """Whether a shell pattern means a text. A name is also its own pattern: ``p[1].png``."""
    return text == pattern or fnmatch(text, pattern)


def matches(name: str, folders: Sequence[str], pattern: str) -> bool:
    """Whether a file's name, or its path below the data set's folder, matches a shell pattern."""
    return fits(name, pattern) or fits("/".join((*folders, name)), pattern)


def pattern_of(name: str) -> str:
    """A shell pattern of a name that can be typed between quotes and among others with commas: ``p?1?.png``."""
    return SPECIAL.sub("?", name)


def divided(texts: str | Iterable[str] | None, names: Iterable[str] = ()) -> list[str]:
    """The patterns of an option: a list, or a text that commas divide, unless it is one of ``names`` as a whole."""
    if texts is None:
        return []
    if not isinstance(texts, str):
        return [str(text).strip() for text in texts]
    if texts.strip().casefold() in {name.casefold() for name in names}:
        return [texts.strip()]
    return [text.strip() for text in texts.split(",")]


def require_used(
    option: str, patterns: Sequence[str], files: Sequence[tuple[str, tuple[str, ...]]], remedy: str
) -> None:
    """Raise ValueError where a pattern matches none of ``files`` (names with their folders).

    A pattern that matches nothing switches off what it was to choose, and nobody would see it.
    """
    for pattern in patterns:
        if not any(matches(name, folders, pattern) for name, folders in files):
            raise ValueError(
                f"{option} is {pattern!r}, which matches no file; expected a shell pattern of names, or of paths below "
                f"the folder, in which capitals count. {remedy}"
            )
