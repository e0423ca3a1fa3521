"""What a person, or MONAI Label, chooses for one request: read from text, a number or a drop-down's list."""

from __future__ import annotations

from typing import Any

from dino_uad.detector import FALSE_POSITIVE_RATES, FREE_RESPONSE

OUTPUTS = ("label map", "numbered findings", "anomaly map")
NO_GROWTH = "off"


def first(value: Any) -> Any:
    """What was chosen of a list, which MONAI Label shows as a drop-down: its first entry where all of it comes back."""
    return value[0] if isinstance(value, list | tuple) and value else value


def operating_point(value: Any) -> float | str:
    """A rate of :data:`FALSE_POSITIVE_RATES`, given as 0.05, "0.05" or "5 %", or a name of :data:`FREE_RESPONSE`.

    Raises:
        ValueError: it is none that was calibrated.
    """
    chosen = first(value)
    text = str(chosen).strip()
    if text in FREE_RESPONSE:
        return text
    try:
        rate = float(text.rstrip("% ")) / (100 if text.endswith("%") else 1)
        return next(known for known in FALSE_POSITIVE_RATES if abs(known - rate) < 1e-6)
    except (ValueError, StopIteration):
        known = ", ".join([*(f"{rate:g}" for rate in FALSE_POSITIVE_RATES), *map(repr, FREE_RESPONSE)])
        raise ValueError(f"false positive rate {value!r} found; this model is calibrated for {known}") from None


def growth(value: Any) -> float | str | None:
    """The operating point that findings grow down to, as in :func:`operating_point`; None for ``"off"``."""
    chosen = first(value)
    if chosen is None or chosen is False or str(chosen).strip().lower() == NO_GROWTH:  # YAML and fire read "off" so
        return None
    return operating_point(chosen)


def output_kind(value: Any) -> str:
    """One of :data:`OUTPUTS`, given as such or as a list (a drop-down) that starts with it; ValueError otherwise."""
    chosen = first(value)
    if chosen not in OUTPUTS:
        raise ValueError(f"output {value!r} found; expected {', '.join(map(repr, OUTPUTS[:-1]))} or {OUTPUTS[-1]!r}")
    return chosen
