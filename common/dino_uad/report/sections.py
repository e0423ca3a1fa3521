"""The parts a report is made of, before they become HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Picture:
    """A PNG with what it shows, in words.

    Attributes:
        caption: shown below it, and read out by screen readers.
        png: the file's bytes.
        file: name under which it is also written to ``figures/``; None for the page only.
    """

    caption: str
    png: bytes
    file: str | None = None


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side under a common title.

    Attributes:
        title: what they have in common; may be empty.
        pictures: in reading order.
        kind: ``"pictures"`` for photographs in threes, ``"charts"`` for charts, ``"strip"`` for thumbnails
            and ``"bar"`` for a bar of colours.
        numbers: of the case shown, name to value.
    """

    title: str
    pictures: list[Picture]
    kind: str = "pictures"
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MetricRow:
    """One line of the metrics table; ``value`` is what ``metrics.json`` holds, None where it is not defined."""

    name: str
    label: str
    help: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Section:
    """A heading with text, facts and galleries."""

    title: str
    text: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    galleries: list[Gallery] = field(default_factory=list)
