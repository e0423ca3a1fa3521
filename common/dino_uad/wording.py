"""Small parts of texts for people: counts with their nouns, and names whose every character can be seen."""

from __future__ import annotations

import unicodedata

UNSEEN = {"Cc", "Cf", "Zl", "Zp"}
"""Unicode categories of what breaks lines, turns the direction of writing, or does not show."""
JOINERS = "\u200c\u200d"
"""Characters of these categories that are needed to spell Persian and Indic names."""


def plural(count: int, noun: str) -> str:
    """``1 file``, ``2 files``, ``1,000 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def were(count: int, noun: str) -> str:
    """``1 file was``, ``2 files were``."""
    return f"{plural(count, noun)} {'was' if count == 1 else 'were'}"


def visible(text: str) -> str:
    """A text with names of files, in which control and direction characters are written out: ``a\\nb.png``.

    A line break in a name would forge a line of a log, and U+202E would let ``gnp.exe`` read ``exe.png``.
    """
    return "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in UNSEEN and one not in JOINERS else one
        for one in text
    )
