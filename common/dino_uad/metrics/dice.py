"""Dice at thresholds that were calibrated on normal pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from dino_uad.metrics.maps import Maps, paired_images, warn_undefined
from dino_uad.metrics.threshold import FALSE_POSITIVE_RATES
from dino_uad.parallel import all_reduce_sum


class DiceAtThresholds(Metric):
    """Dice = 2 TP / (2 TP + FP + FN) of ``score >= threshold``, exact, for each calibrated threshold.

    Results are ``pixel_dice_fpr10`` (pooled over all pixels, normal images included) and ``pixel_dice_fpr10_per_image``
    (mean over the images that have an anomaly; Dice is not defined on the others), and so on for the other rates.

    Args:
        thresholds: ``[T]``, or a function that returns it, called at the first update after a reset: in a bundle the
            network is loaded after this object is made.
        output_transform: from the engine's output to ``(y_pred, y)``, both ``[B,1,H,W]`` or lists of ``[1,H,W]``.
        fprs: the T false positive rates the thresholds stand for; they only name the results.
        device: where the counts live.
    """

    def __init__(
        self,
        thresholds: Tensor | Sequence[float] | Callable[[], Tensor],
        output_transform: Callable = lambda output: output,
        fprs: Sequence[float] = FALSE_POSITIVE_RATES,
        device: str | torch.device = "cpu",
    ) -> None:
        self.thresholds, self.fprs = thresholds, tuple(fprs)
        super().__init__(output_transform, device, skip_unrolling=True, metrics_result_mode="flatten")

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all pixels."""
        self._current: Tensor | None = None
        # Pooled: true positives, predicted, actual pixels. Per image: sum of Dice, images with an anomaly.
        self._pooled = torch.zeros((3, len(self.fprs)), dtype=torch.int64, device=self._device)
        self._per_image = torch.zeros((2, len(self.fprs)), dtype=torch.float64, device=self._device)
        self._not_finite = torch.zeros((), dtype=torch.int64, device=self._device)

    @reinit__is_reduced
    def update(self, output: tuple[Maps, Maps]) -> None:
        """Count the pixels of ``(y_pred, y)``; raises :class:`ValueError` for unequal shapes, a missing threshold."""
        if self._current is None:
            self._current = self._resolve_thresholds()
        for scores, mask in paired_images(*output):
            scores, mask = scores.to(self._device).float().flatten(), mask.to(self._device).flatten()
            self._not_finite += (~scores.isfinite()).sum()
            predicted = scores >= self._current[:, None]
            counts = torch.stack([(predicted & mask).sum(1), predicted.sum(1), mask.sum().expand(len(self.fprs))])
            self._pooled += counts
            has_anomaly = counts[2] > 0
            self._per_image += torch.stack([torch.where(has_anomaly, _dice(counts), 0), has_anomaly.double()])

    def compute(self) -> dict[str, float]:
        """Dice over all processes; NaN, with a warning, without an anomalous pixel. ValueError for NaN, Inf scores."""
        pooled, per_image, not_finite = all_reduce_sum(
            self._pooled.clone(), self._per_image.clone(), self._not_finite.clone()
        )
        if not_finite:
            raise ValueError(f"{int(not_finite)} anomaly scores are NaN or Inf, expected finite numbers")
        # Without an anomalous pixel Dice would be 0 however few pixels are predicted.
        dice = torch.where(pooled[2] > 0, _dice(pooled), torch.nan).tolist()
        means = (per_image[0] / per_image[1]).tolist()
        names = [f"pixel_dice_fpr{100 * fpr:g}" for fpr in self.fprs]
        result = dict(zip(names, dice, strict=True)) | {f"{n}_per_image": m for n, m in zip(names, means, strict=True)}
        warn_undefined(result, "found no anomalous pixel, expected at least one image with an anomaly")
        return result

    def _resolve_thresholds(self) -> Tensor:
        found = self.thresholds() if callable(self.thresholds) else self.thresholds
        thresholds = torch.as_tensor(found, dtype=torch.float32).to(self._device).flatten()
        if len(thresholds) != len(self.fprs) or thresholds.isnan().any():
            raise ValueError(
                f"found thresholds {thresholds.tolist()}, expected {len(self.fprs)} numbers for the false positive "
                f"rates {list(self.fprs)}: calibrate the model first (train does)"
            )
        return thresholds


def _dice(counts: Tensor) -> Tensor:
    """``[3,T]`` true positives, predicted and actual pixels to Dice ``[T]``."""
    return 2 * counts[0].double() / (counts[1] + counts[2]).double()
