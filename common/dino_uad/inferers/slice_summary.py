"""What is kept of a slice's prediction besides its map: a few numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SUMMARY = "slice_summary"
"""Key of the meta data of an inferred map: ``[B,D,2+T]``, for pictures with D = 1."""


def predict(network: Callable[..., Tensor], images: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """The maps ``[B,1,H,W]`` of images ``[B,C,H,W]``, and their :func:`summary`.

    The latter is None where the network is no detector but, for example, an exported one.
    """
    if not hasattr(network, "predict"):
        return network(images, *args, **kwargs), None
    predicted = network.predict(images, *args, **kwargs)
    return predicted["pred"], summary(network, predicted)


def summary(network: Any, predicted: dict[str, Tensor]) -> Tensor:
    """``[B, 2 + T]`` float32 on the CPU.

    Image score, share of the pixels that are foreground, and shares of the foreground at or above each of the network's
    T thresholds (NaN for one that was not calibrated).
    """
    maps, thresholds = predicted["pred"], network.thresholds
    inside = network.inside(predicted["foreground"]) if "foreground" in predicted else torch.ones_like(maps, dtype=bool)
    count = inside.flatten(1).sum(1)
    reached = torch.stack([((maps >= t) & inside).flatten(1).sum(1) for t in thresholds], dim=1)
    above = torch.where(thresholds.isnan(), torch.nan, reached / count.clamp_min(1)[:, None])
    share = count / inside[0].numel()
    return torch.cat([predicted["image_score"].float()[:, None], share[:, None], above], dim=1).float().cpu()


def not_run(count: int, network: Any) -> Tensor:
    """Summaries ``[count, 2 + T]`` of slices that were not run: no score, no foreground."""
    rows = torch.zeros(count, 2 + len(network.thresholds))
    rows[:, 0] = torch.nan
    return rows
