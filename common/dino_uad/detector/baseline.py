"""What an image's scores are measured from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

QUANTILE = 0.25
"""Patches of normal tissue are at least as many as this share of a foreground."""


class ImageBaseline(nn.Module):
    """Subtracts a share of the 25th percentile of an image's foreground scores from all of them.

    The percentile varies between healthy images (scanner, contrast, level of the slice) by more than a small lesion
    adds. Where a whole image differs because of a lesion, subtracting all of it would take the lesion away: hence a
    share, and a bound, the highest percentile that a normal validation image has.

    Args:
        share: of the percentile, in [0, 1]; 0 leaves scores as they are.
    """

    def __init__(self, share: float = 0.0) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"baseline is {share!r}; expected the share of it to subtract, from 0 to 1")
        self.share = float(share)
        self.register_buffer("highest", torch.full((), torch.inf))

    def measure(self, scores: Tensor, foreground: Tensor) -> Tensor:
        """The percentile of ``[B,1,h,w]`` scores where ``foreground`` is, ``[B]``; 0 for an image without any."""
        count = foreground.flatten(1).sum(dim=1, keepdim=True)
        ordered = scores.masked_fill(~foreground, torch.inf).flatten(1).sort(dim=1).values
        position = QUANTILE * (count - 1).clamp_min(0).to(scores.dtype)
        low = position.floor().long()
        high = torch.minimum(low + 1, (count - 1).clamp_min(0))
        lower, upper = ordered.gather(1, low), ordered.gather(1, high)
        return torch.where(count > 0, lower + (position - low) * (upper - lower), 0.0)[:, 0]

    def forward(self, scores: Tensor, foreground: Tensor) -> Tensor:
        """``[B,1,h,w]`` scores above the baseline."""
        if self.share == 0:
            return scores
        baseline = torch.minimum(self.measure(scores, foreground), self.highest.to(scores))
        return scores - self.share * baseline[:, None, None, None]
