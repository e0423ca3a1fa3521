"""Operating points: score thresholds at given false positive rates on normal pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from dino_uad.detector import FALSE_POSITIVE_RATES
from dino_uad.metrics.closer_look import CloserLook
from dino_uad.metrics.histogram import DEFAULT_BINS, ScoreHistogram
from dino_uad.metrics.maps import Maps
from dino_uad.settings import require_number


class ThresholdAtFPR(Metric):
    """Thresholds such that at most a fraction ``fpr`` of normal validation pixels has ``score >= threshold``.

    The guarantee holds for the pixels seen, ties included. A threshold is the lower edge of a bin, so it is higher than
    necessary by less than one bin of :class:`~dino_uad.metrics.histogram.ScoreHistogram` (one float32 step if the
    scores span at most ``bins`` of them). Given all pixels once more after :meth:`look_closer` it is the smallest float
    that will do. A threshold that no pixel reaches is the number after the largest score.

    Args:
        output_transform: from the engine's output to the anomaly maps of normal images, ``[B,1,H,W]`` or a list of
            ``[1,H,W]``.
        fprs: false positive rates in (0, 1).
        bins: number of bins of the histogram.
        device: where the histogram lives.
    """

    def __init__(
        self,
        output_transform: Callable = lambda output: output,
        fprs: Sequence[float] = FALSE_POSITIVE_RATES,
        bins: int = DEFAULT_BINS,
        device: str | torch.device = "cpu",
    ) -> None:
        for fpr in fprs:
            require_number("false positive rate", fpr, 0, 1, ends="()")
        self.fprs, self.bins = tuple(fprs), bins
        super().__init__(output_transform, device, skip_unrolling=True)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all pixels."""
        self.histogram = ScoreHistogram(1, self.bins, self._device)
        self._closer: CloserLook | None = None

    @reinit__is_reduced
    def update(self, output: Maps) -> None:
        """Count the pixels of normal images; raises :class:`ValueError` for NaN or Inf scores."""
        for scores in [output] if isinstance(output, Tensor) else output:
            (self._closer or self.histogram).update(scores.detach().as_subclass(torch.Tensor))

    def look_closer(self) -> None:
        """Expect the same pixels again, all of them, in further updates; raises what :meth:`compute` does."""
        self.histogram, first = self._first_bins()
        self._closer = CloserLook(self.histogram, (first - 1).unique())

    def compute(self) -> Tensor:
        """Thresholds ``[len(fprs)]`` float32 over all processes; raises :class:`ValueError` if there were no pixels."""
        if self._closer is None:
            histogram, first = self._first_bins()
            return histogram.lower_edges()[first]
        values, counts = self._closer.levels()
        highest_above = values[self._first_allowed(counts) - 1].float()
        return torch.nextafter(highest_above, torch.full_like(highest_above, torch.inf))

    def _first_bins(self) -> tuple[ScoreHistogram, Tensor]:
        """The histogram of all processes, and for each rate the first bin that may be above its threshold."""
        histogram = self.histogram.all_reduced()
        histogram.require_finite()
        if not histogram.counts.any():
            raise ValueError("no normal validation pixels to calibrate thresholds on: check the validation datalist")
        return histogram, self._first_allowed(histogram.counts[0])

    def _first_allowed(self, counts: Tensor) -> Tensor:
        """The first of some ascending levels, seen ``counts`` times each, that no more than each rate's share reach."""
        reached = counts.flip(0).cumsum(0).flip(0)
        total = int(reached[0])
        allowed = torch.tensor([int(fpr * total) for fpr in self.fprs], device=counts.device)
        return (reached > allowed[:, None]).sum(1)
