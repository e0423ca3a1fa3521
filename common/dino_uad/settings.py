"""Checks of settings: every message names the setting, what was found and what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
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


def require_device(name: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is what torch knows as a device; whether this machine has one is not asked."""
    import torch  # not for `python -m dino_uad --help`

    try:
        known = isinstance(value, torch.device | str) and bool(torch.device(value))
    except RuntimeError:
        known = False
    require(name, value, known, "cpu, cuda, cuda:1 for the second GPU, or another device of torch")


def require_memory(name: str, value: Any, needed: float) -> None:
    """Raise ValueError if a setting takes more than the machine's free memory: ``needed`` bytes, at least."""
    import psutil

    free = psutil.virtual_memory().available
    require(
        name, value, needed <= free, f"less, as it takes {needed / 1e9:.0f} GB or more and {free / 1e9:.0f} GB are free"
    )


RANGES: dict[str, Callable[[str, Any], None]] = {
    "max_epochs": require_count,
    "max_steps": require_count,
    "val_interval": require_count,
    "interval": require_count,
    "batch_size": require_count,
    "patience": require_count,
    "num_workers": partial(require_count, least=0),
    "seed": partial(require_count, least=0),
    "lr": partial(require_number, low=0, high=1, ends="(]"),
    "timeout_minutes": partial(require_number, low=0, ends="(]"),
    "device": require_device,
}
"""Arguments that mean the same in all classes, also in those of libraries, whose messages tell no key of a config."""
