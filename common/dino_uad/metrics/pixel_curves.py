"""Pixel AUROC, average precision (AUPR) and largest F1 over all pixels of a data set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced

from dino_uad.metrics.curves import CURVES, error_bounds
from dino_uad.metrics.histogram import DEFAULT_BINS, ScoreHistogram
from dino_uad.metrics.maps import Maps, paired_tensors, warn_undefined


class PixelCurves(Metric):
    """``pixel_auroc``, ``pixel_aupr`` (average precision) and ``pixel_f1_max``, pooled over all pixels.

    One histogram of the scores serves the three, so each pixel is binned once. Attached to an engine under any name it
    puts the three into ``engine.state.metrics``; attach it as ``{"pixel_auroc": PixelCurves(...)}`` to make AUROC the
    key metric. A single number under a name of its own is ignite's view ``curves["pixel_auroc"]``.

    Error: zero as long as the scores span at most ``bins`` neighbouring float32 numbers, otherwise bounded by
    :meth:`error_bounds`, which counts the pairs that share a bin; for the bin widths see
    :class:`~dino_uad.metrics.histogram.ScoreHistogram`. For scores with a density it is far below 1e-4 at the default
    number of bins. Memory is ``16 * bins`` bytes, and processes sum it; pixels are never gathered.

    Args:
        output_transform: from the engine's output to ``(y_pred, y)``, both ``[B,1,H,W]`` or lists of ``[1,H,W]``.
        bins: number of bins of the histogram.
        device: where the histogram lives.
    """

    def __init__(
        self,
        output_transform: Callable = lambda output: output,
        bins: int = DEFAULT_BINS,
        device: str | torch.device = "cpu",
    ) -> None:
        self.bins = bins
        # Views and handlers ask several times; ignite clears this at every reset and update.
        self._result: dict[str, float] | None = None
        super().__init__(output_transform, device, skip_unrolling=True, metrics_result_mode="flatten")

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all pixels."""
        self.histogram = ScoreHistogram(2, self.bins, self._device)

    @reinit__is_reduced
    def update(self, output: tuple[Maps, Maps]) -> None:
        """Count the pixels of ``(y_pred, y)``; raises :class:`ValueError` for NaN or Inf scores, unequal shapes."""
        for scores, mask in paired_tensors(*output):
            self.histogram.update(scores, mask)

    def compute(self) -> dict[str, float]:
        """The three numbers over all processes; NaN, with a warning, if the pixels are all of one class."""
        if self._result is None:
            negatives, positives = self._reduced_counts()
            self._result = {f"pixel_{name}": float(curve(negatives, positives)) for name, curve in CURVES.items()}
            found = f"{int(negatives.sum())} normal and {int(positives.sum())} anomalous pixels"
            warn_undefined(self._result, f"found {found}, expected both kinds")
        return self._result

    def error_bounds(self) -> dict[str, float]:
        """Bound on the binning error of each number for the pixels seen; pairs of equal scores count as unknown too."""
        return {f"pixel_{name}": float(bound) for name, bound in error_bounds(*self._reduced_counts()).items()}

    def _reduced_counts(self) -> torch.Tensor:
        histogram = self.histogram.all_reduced()
        histogram.require_finite()
        return histogram.counts
