"""One small score histogram per image: what resampling of images needs instead of their pixels."""

from __future__ import annotations

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
        overall = ScoreHistogram(2, self.bins, self.device)
        for histogram in self._histograms:
            overall.low = torch.minimum(overall.low, histogram.low)
            overall.high = torch.maximum(overall.high, histogram.high)
        overall.low, overall.high = low, high = overall.key_range()
        overall.require_finite()
        rows = [histogram.between(low, high).counts for histogram in self._histograms]
        return gather_rows(torch.stack(rows) if rows else torch.empty_like(overall.counts, dtype=torch.int32)[None][:0])
