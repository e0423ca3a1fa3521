"""One small score histogram per image: what resampling of images needs instead of their pixels."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from dino_uad.metrics.histogram import ScoreHistogram
from dino_uad.parallel import gather_rows

IMAGE_BINS = 1 << 12


class ImageHistograms:
    """Histograms of the normal and the anomalous pixels of each image, ``8 * bins`` bytes per image.

    Args:
        bins: number of bins; the bins of all images are aligned when they are read.
        device: where the histograms live.
    """

    def __init__(self, bins: int = IMAGE_BINS, device: torch.device | str = "cpu") -> None:
        self.bins, self.device = bins, device
        self._histograms: list[ScoreHistogram] = []

    def append(self, scores: Tensor, mask: Tensor) -> None:
        """Add one image: ``scores [1,H,W]`` and bool ``mask [1,H,W]``; ValueError for NaN or Inf scores."""
        histogram = ScoreHistogram(2, self.bins, self.device, torch.int32)
        histogram.update(scores, mask)
        self._histograms.append(histogram)

    def counts(self) -> Tensor:
        """``[n,2,bins]`` int32, normal and anomalous pixels of the images of all processes, in the order of ranks."""
        return aligned_counts(self._histograms, ScoreHistogram(2, self.bins, self.device, torch.int32))


def aligned_counts(histograms: Iterable[ScoreHistogram], empty: ScoreHistogram) -> Tensor:
    """``[n,rows,bins]`` of the histograms of all processes, over the same bins, in the order of ranks.

    Args:
        histograms: of this process; there may be none.
        empty: one like them without scores.

    Raises:
        ValueError: a histogram was given NaN or Inf scores.
    """
    histograms = list(histograms)
    overall = copy.copy(empty)
    for histogram in histograms:
        overall.low = torch.minimum(overall.low, histogram.low)
        overall.high = torch.maximum(overall.high, histogram.high)
    overall.low, overall.high = overall.key_range()
    overall.require_finite()
    rows = [histogram.between(overall.low, overall.high).counts for histogram in histograms]
    return gather_rows(torch.stack(rows) if rows else empty.counts[None][:0])
