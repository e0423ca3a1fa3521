"""From the scores of patches to that of their image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGEST = 0.01
"""Share of the foreground whose mean score is the image's."""


def image_score(scores: Tensor, foreground: Tensor | None = None) -> Tensor:
    """Mean of the largest 1 % of the foreground's scores, at least one (AnomalyDINO, sec. 3): ``[B,1,h,w]`` to ``[B]``.

    An image without foreground scores 0.
    """
    flat = scores.flatten(1)
    count = max(1, math.floor(LARGEST * int(flat.shape[1])))
    if foreground is None:
        return flat.topk(count, dim=1).values.mean(dim=1)
    inside = foreground.flatten(1)
    top = flat.masked_fill(~inside, -torch.inf).topk(count, dim=1).values
    present = inside.sum(dim=1, keepdim=True)
    wanted = (present * LARGEST).floor().clamp_min(1)
    taken = (torch.arange(count, device=flat.device) < wanted) & (present > 0)
    return torch.where(taken, top, 0.0).sum(dim=1) / wanted[:, 0].to(flat.dtype)
