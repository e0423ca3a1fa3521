"""Which slices of a volume are used: for the fit, and with the same settings for inference."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from dino_uad.settings import require_choice

logger = logging.getLogger(__name__)

T = TypeVar("T")

# brats_flair: the 155 axial slices of a BraTS volume, of which BMAD's brain benchmark takes 60 to 99.
# liver_ct: as BMAD's liver benchmark; the label volume holds 1 in the liver and 2 in the tumour (LiTS).
PRESETS: dict[str, dict[str, Any]] = {
    "brats_flair": {"start": 60, "stop": 100, "min_foreground": 0.01},
    "liver_ct": {"min_foreground": 0.01, "organ_masked": True, "anomalous_above": 1.0},
}

ANNOTATED, EMPTY = "with an annotated anomaly", "without foreground"


def slice_range(image: Tensor, axis: int, start: int, stop: int | None, stride: int = 1) -> tuple[range, Counter[str]]:
    """Indices of every ``stride``-th slice of ``[C,X,Y,Z]`` from ``start`` to before ``stop``.

    Returns:
        the indices, and how many slices are not among them, by reason.

    Raises:
        ValueError: the range is outside of the volume.
    """
    depth = image.shape[1 + axis]
    inside = range(*slice(start, stop).indices(depth))
    if not inside:
        raise ValueError(
            f"{source(image)}: no slices from {start} to {stop} in a volume with {depth} slices along "
            f"axis {axis}; expected a range within the volume (a preset fits one kind of data set)"
        )
    indices = inside[::stride]
    others = {
        f"outside slices {inside[0]} to {inside[-1]}": depth - len(inside),
        f"passed over by stride {stride}": len(inside) - len(indices),
    }
    return indices, Counter(others)


def preset_settings(preset: str | None) -> dict[str, Any]:
    """The settings of a preset, none for None; ValueError for an unknown one."""
    require_choice("preset", preset, (*sorted(PRESETS), None))
    return PRESETS.get(preset, {})


def choose(candidates: Iterable[T], reason: Callable[[T], str | None], left_out: Counter[str]) -> list[T]:
    """Keep the candidates whose ``reason`` is None; count the others by reason in ``left_out``."""
    chosen = []
    for candidate in candidates:
        found = reason(candidate)
        if found is None:
            chosen.append(candidate)
        else:
            left_out[found] += 1
    return chosen


def foreground_share(image: Tensor) -> Tensor:
    """Share of pixels above 0 in any channel: of a slice ``[C,H,W]``, or ``[D]`` of the slices of ``[C,H,W,D]``."""
    plain = torch.as_tensor(image).as_subclass(Tensor)
    if plain.ndim == 4:
        return torch.stack([foreground_share(plane) for plane in plain.unbind(-1)])
    above = (plain > 0).any(dim=0)
    return above.sum().double() / above.numel()


def little_foreground(share: float, min_foreground: float) -> str | None:
    """Reason to leave out a slice whose share of foreground is below ``min_foreground``; None if it is not."""
    if share >= min_foreground:
        return None
    return f"with less than {min_foreground:.3g} of their pixels above 0" if share else EMPTY


def log_left_out(image: Tensor, axis: int, reasons: Mapping[str, int], what: str) -> None:
    """One line on the slices that are not used, if there are any, with the reasons."""
    count, depth = sum(reasons.values()), image.shape[1 + axis]
    if count:
        listed = ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number)
        level = logging.WARNING if count == depth else logging.INFO
        logger.log(level, "%s: %d of %d %s: %s", Path(source(image)).name, count, depth, what, listed)


def source(image: Tensor) -> str:
    """The file an image came from, for messages."""
    return str(getattr(image, "meta", {}).get("filename_or_obj", "volume"))
