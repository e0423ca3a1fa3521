"""Checks of what a head is constructed with: every message names the setting, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def require(name: str, value: Any, valid: bool, expected: str) -> None:
    """Refuse a setting that is not ``valid``.

    Raises:
        ValueError: it is not.
    """
    if not valid:
        raise ValueError(f"{name} is {value!r}, expected {expected}")


def require_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuse what is none of ``choices``."""
    choices = list(choices)
    require(name, value, value in choices, f"one of {', '.join(map(str, choices))}")


def require_count(name: str, value: Any, least: int = 1) -> None:
    """Refuse what is no whole number of at least ``least``; a word or a truth value is none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    require(name, value, whole and value >= least, f"a whole number of at least {least}")


def require_number(name: str, value: Any, low: float, high: float = float("inf"), *, ends: str = "[]") -> None:
    """Refuse what is no number between ``low`` and ``high``, with or without the ``ends``: ``[]``, ``(]``, ``[)``."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    above = number and (value > low if ends[0] == "(" else value >= low)
    below = number and (value < high if ends[1] == ")" else value <= high)
    require(name, value, above and below, f"a number in {ends[0]}{low:g}, {high:g}{ends[1]}")
