"""Per-image baseline: a share of the 25th percentile of an image's scores is subtracted from all of them."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from dino_uad.settings import is_number, require

QUANTILE = 0.25
"""Share of a foreground that is normal tissue at least."""
UNKNOWN = 0.5
"""The share to subtract, with ``auto``, where too few images were seen to learn it."""
FEWEST = 8  # images that can say it

logger = logging.getLogger(__name__)


class ImageBaseline(nn.Module):
    """Subtracts a share of the 25th percentile of an image's foreground scores from all of them.

    The percentile varies between healthy images (scanner, contrast, level of the slice) by more than a small lesion
    adds. Where a whole image differs because of a lesion, subtracting all of it would take the lesion away: hence a
    share, and a bound, the highest percentile that a normal validation image has.

    ``auto`` learns the share from normal validation images: by how much an image's highest scores rise with its
    percentile, both relative to their size (the slope of one's logarithm on the other's, their elasticity), within 0
    and 1. If all scores of an image rise together, as with the contrast of a scan, it is 1; if the percentile varies
    and the highest scores do not follow, it is small: that is no property of the image as a whole.

    Args:
        share: of the percentile, in [0, 1], or ``auto``; 0 leaves scores as they are.
    """

    def __init__(self, share: float | str = 0.0) -> None:
        super().__init__()
        valid = share == "auto" or is_number(share, 0, 1)
        require("baseline", share, valid, "the share to subtract, in [0, 1], or 'auto'")
        self.mode = share if share == "auto" else float(share)
        self.register_buffer("share", torch.tensor(UNKNOWN if share == "auto" else float(share)))
        self.register_buffer("highest", torch.full((), torch.inf))

    def fit(self, baselines: Tensor, peaks: Tensor) -> None:
        """Learn the bound, and the share if it is ``auto``, from normal images.

        Args:
            baselines: what :meth:`measure` gives for each, ``[n]``.
            peaks: the mean of the highest scores of each, before anything is subtracted, ``[n]``.
        """
        self.highest.copy_(baselines.max() if len(baselines) else torch.tensor(torch.inf))
        if self.mode == "auto":
            found = _elasticity(baselines.double(), peaks.double())
            self.share.copy_(torch.tensor(UNKNOWN if found is None else min(max(found, 0.0), 1.0)))
            said = "normal validation images do not tell" if found is None else "as normal validation images say"
            logger.info(f"image baseline: {float(self.share):.2f} of it is subtracted; {said}")

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
        if self.mode == 0:
            return scores
        baseline = torch.minimum(self.measure(scores, foreground), self.highest.to(scores))
        return scores - self.share.to(scores) * baseline[:, None, None, None]


def _elasticity(baselines: Tensor, peaks: Tensor) -> float | None:
    """Slope of log peaks on log baselines ``[n]``; None for too few, equal, or any that is not positive.

    Scores that may be negative have no relative size, wherever most of them lie.
    """
    positive = (baselines > 0) & (peaks > 0)
    x, y = (values[positive].log() for values in (baselines, peaks))
    if len(x) < max(FEWEST, len(positive)) or float(x.std()) < 1e-6:
        return None
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
