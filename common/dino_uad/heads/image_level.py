"""From the scores of patches to that of their image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST = 0.01
"""Share of the foreground whose mean score is the image's."""


def image_score(scores: Tensor, foreground: Tensor | None = None, fewest: int = 1) -> Tensor:
    """Mean of the largest 1 % of the foreground's scores (AnomalyDINO, sec. 3): ``[B,1,h,w]`` to ``[B]``.

    An image without foreground scores 0.

    Args:
        scores: of patches, ``[B,1,h,w]``.
        foreground: ``[B,1,h,w]`` bool; everything when None.
        fewest: patches that are taken at least, where there are so many: of a small grid, 1 % is one patch or none.
    """
    flat = scores.flatten(1)
    inside = torch.ones_like(flat, dtype=torch.bool) if foreground is None else foreground.flatten(1)
    count = min(max(fewest, math.floor(LARGEST * int(flat.shape[1]))), int(flat.shape[1]))
    top = flat.masked_fill(~inside, -torch.inf).topk(count, dim=1).values
    present = inside.sum(dim=1, keepdim=True)
    wanted = torch.minimum((present * LARGEST).floor().clamp_min(fewest), present).clamp_min(1)
    taken = (torch.arange(count, device=flat.device) < wanted) & (present > 0)
    return torch.where(taken, top, 0.0).sum(dim=1) / wanted[:, 0].to(flat.dtype)
