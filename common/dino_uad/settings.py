"""Checks of settings: every message names the setting, what was found and what was expected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any


def require(name: str, value: Any, valid: bool, expected: str) -> None:
    """Refuse a setting that is not ``valid``.

    Raises:
        ValueError: it is not.
    """
    if not valid:
        raise ValueError(f"{name} is {value!r}; expected {expected}")


def require_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    choices = list(choices)
    require(name, value, value in choices, f"one of {', '.join(map(str, choices))}")


def require_count(name: str, value: Any, least: int = 1) -> None:
    """Raise ValueError unless ``value`` is a whole number of at least ``least``; a bool is none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    require(name, value, whole and value >= least, f"a whole number of at least {least}")


def is_number(value: Any, low: float, high: float, *, ends: str = "[]") -> bool:
    """Whether something is a finite number between ``low`` and ``high``, with or without the ``ends``."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    above = number and (value > low if ends[0] == "(" else value >= low)
    return above and (value < high if ends[1] == ")" else value <= high)


def require_number(name: str, value: Any, low: float, high: float = math.inf, *, ends: str = "[]") -> None:
    """Raise ValueError unless ``value`` is a number from ``low`` to ``high``; ``ends`` count ``[]`` or not ``()``."""
    upwards = f"a number {'above' if ends[0] == '(' else 'of at least'} {low:g}"
    expected = f"a number in {ends[0]}{low:g}, {high:g}{ends[1]}" if high < math.inf else upwards
    require(name, value, is_number(value, low, high, ends=ends), expected)


def require_size(name: str, value: Any) -> tuple[int, int]:
    """Return height and width in pixels.

    Raises:
        ValueError: it is not.
    """
    sides = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    whole = [isinstance(side, Integral) and not isinstance(side, bool) and side >= 1 for side in sides]
    require(name, value, len(whole) == 2 and all(whole), "height and width, two positive whole numbers of pixels")
    height, width = sides
    return int(height), int(width)
