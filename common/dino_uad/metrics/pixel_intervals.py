"""Bootstrap confidence intervals of the pixel metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from dino_uad.detector import FALSE_POSITIVE_RATES
from dino_uad.metrics.aupro import all_region_weights, aupro
from dino_uad.metrics.bootstrap import Group, gather_units, group_keys, percentile_intervals
from dino_uad.metrics.curves import CURVES
from dino_uad.metrics.dice import Thresholds, dice_of_sums, dice_sums, resolve_thresholds
from dino_uad.metrics.histogram import ScoreHistogram
from dino_uad.metrics.image_histograms import IMAGE_BINS, aligned_counts
from dino_uad.metrics.maps import Maps, paired_images, warn_undefined
from dino_uad.parallel import gather_rows

ROWS = 3
"""Of a histogram: normal pixels, anomalous pixels, and anomalous pixels that weigh 1 / size of their region."""


class PixelIntervals(Metric):
    """Intervals ``<name>_low``, ``<name>_high`` of AUROC, AUPR, largest F1, AUPRO, and Dice at each threshold.

    The names are those of :class:`~dino_uad.metrics.PixelCurves` and :class:`~dino_uad.metrics.DiceAtThresholds`, and
    ``pixel_aupro``. For the method see :mod:`dino_uad.metrics.bootstrap`. The pixels are not kept: a group of images (a
    patient, or one image) takes ``12 * bins`` bytes, 48 KB by default, however large its images are, and ``40 T`` bytes
    for Dice, which is exact. The coarser bins move AUROC by about 1e-4, AUPRO by 1e-3 and AUPR, where ties count
    most, by 3e-3 (scores that reach down to zero, 4096 bins): well below the width of an interval.

    Args:
        thresholds: calibrated ones ``[T]``, or a function that returns them, called at the first update after a reset.
        output_transform: from the engine's output to ``(y_pred, y, groups)``; maps are ``[B,1,H,W]`` or lists of
            ``[1,H,W]``, groups B integers or strings such as patient ids.
        fprs: the T false positive rates the thresholds stand for; they only name the results.
        limit: of AUPRO.
        replicates: number of bootstrap samples.
        confidence: coverage of the interval.
        seed: of the generator that draws them.
        bins: number of bins of a histogram.
        device: where the histograms live; regions are labelled on the CPU.
    """

    def __init__(
        self,
        thresholds: Thresholds,
        output_transform: Callable = lambda output: output,
        fprs: Sequence[float] = FALSE_POSITIVE_RATES,
        limit: float = 0.3,
        replicates: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        bins: int = IMAGE_BINS,
        device: str | torch.device = "cpu",
    ) -> None:
        self.thresholds, self.fprs, self.limit, self.bins = thresholds, tuple(fprs), limit, bins
        self.replicates, self.confidence, self.seed = replicates, confidence, seed
        super().__init__(output_transform, device, skip_unrolling=True, metrics_result_mode="flatten")

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all images."""
        self._current: Tensor | None = None
        self._histograms: dict[int, ScoreHistogram] = {}
        self._dice: dict[int, Tensor] = {}

    @reinit__is_reduced
    def update(self, output: tuple[Maps, Maps, Sequence[Group]]) -> None:
        """Add the images of a batch; raises :class:`ValueError` for NaN or Inf scores, unequal shapes or lengths."""
        if self._current is None:
            self._current = resolve_thresholds(self.thresholds, self.fprs).to(self._device)
        maps, masks, groups = output
        pairs = list(paired_images(maps, masks))
        keys, weights = group_keys(groups, len(pairs)), all_region_weights([mask[0] for _, mask in pairs], self._device)
        for (scores, mask), key, weight in zip(pairs, keys, weights, strict=True):
            image = self._image_histogram(scores, mask, weight)
            self._histograms.setdefault(key, self._empty()).merge(image)
            dice = dice_sums(scores.to(self._device), mask.to(self._device), self._current)
            self._dice[key] = self._dice.get(key, 0) + dice

    def compute(self) -> dict[str, float]:
        """Lower and upper end of each interval over all processes; NaN, with a warning, for a single class."""
        units, place = gather_units(list(self._histograms), self._device)
        counts = aligned_counts(self._histograms.values(), self._empty())
        occupied = counts.sum(dim=(0, 1)) > 0
        occupied[0] = True  # the metrics want at least one level
        counts = counts[..., occupied]
        dice = torch.stack([*self._dice.values()]) if self._dice else torch.zeros(0, 5, len(self.fprs))
        counts, dice = (
            rows.new_zeros((units, *rows.shape[1:]), dtype=torch.float64).index_add_(0, place, rows.double())
            for rows in (counts, gather_rows(dice.double().to(self._device)))
        )
        result = percentile_intervals(
            lambda times: self._metrics(_weighted(times, counts), _weighted(times, dice)),
            units,
            self.replicates,
            self.seed,
            self.confidence,
            self._device,
        )
        warn_undefined(result, "no bootstrap sample held both normal and anomalous pixels")
        return result

    def _metrics(self, counts: Tensor, dice: Tensor) -> dict[str, Tensor]:
        """Values ``[R]`` of R samples, from their histograms ``[R,3,K]`` and sums ``[R,5,T]``."""
        normal, anomalous, overlap = counts.unbind(1)
        curves = {f"pixel_{name}": curve(normal, anomalous) for name, curve in CURVES.items()}
        return curves | {"pixel_aupro": aupro(normal, overlap, self.limit)} | dice_of_sums(dice, self.fprs)

    def _image_histogram(self, scores: Tensor, mask: Tensor, weight: Tensor) -> ScoreHistogram:
        """Of one image ``[1,H,W]`` with the weights of its regions ``[H,W]``.

        In float64: many small weights of a large region must not be lost in float32.
        """
        histogram = ScoreHistogram(ROWS, self.bins, self._device, torch.float64)
        histogram.update(scores, mask)
        inside = scores[mask]
        histogram.update(inside, torch.full_like(inside, 2), weight[mask[0].to(weight.device)])
        return histogram

    def _empty(self) -> ScoreHistogram:
        return ScoreHistogram(ROWS, self.bins, self._device, torch.float32)


def _weighted(times: Tensor, rows: Tensor) -> Tensor:
    """Sums ``[R,...]`` of the units' ``rows [units,...]`` in R samples that draw them ``times [R,units]``."""
    return (times @ rows.flatten(1)).view(len(times), *rows.shape[1:])
