"""Dice at thresholds that were calibrated on normal pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from dino_uad.detector import FALSE_POSITIVE_RATES
from dino_uad.metrics.maps import Maps, paired_images, warn_undefined
from dino_uad.parallel import all_reduce_sum

Thresholds = Tensor | Sequence[float] | Callable[[], Tensor]
"""``[T]``, or a function that returns it: in a bundle the network is loaded after the metric is made."""


class DiceAtThresholds(Metric):
    """Dice = 2 TP / (2 TP + FP + FN) of ``score >= threshold``, exact, for each calibrated threshold.

    Results are ``pixel_dice_fpr10`` (pooled over all pixels, normal images included) and ``pixel_dice_fpr10_per_image``
    (mean over the images that have an anomaly; Dice is not defined on the others), and so on for the other rates.

    Args:
        thresholds: ``[T]``, one for each of :data:`~dino_uad.detector.FALSE_POSITIVE_RATES`, or a function that
            returns them, called at the first update after a reset.
        output_transform: from the engine's output to ``(y_pred, y)``, both ``[B,1,H,W]`` or lists of ``[1,H,W]``.
        device: where the counts live.
    """

    def __init__(
        self,
        thresholds: Thresholds,
        output_transform: Callable = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        self.thresholds = thresholds
        super().__init__(output_transform, device, skip_unrolling=True, metrics_result_mode="flatten")

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all pixels."""
        self._current: Tensor | None = None
        self._sums = torch.zeros((5, len(FALSE_POSITIVE_RATES)), dtype=torch.float64, device=self._device)
        self._not_finite = torch.zeros((), dtype=torch.int64, device=self._device)

    @reinit__is_reduced
    def update(self, output: tuple[Maps, Maps]) -> None:
        """Count the pixels of ``(y_pred, y)``; raises :class:`ValueError` for unequal shapes, a missing threshold."""
        if self._current is None:
            self._current = resolve_thresholds(self.thresholds, FALSE_POSITIVE_RATES).to(self._device)
        for scores, mask in paired_images(*output):
            scores, mask = scores.to(self._device), mask.to(self._device)
            self._not_finite += (~scores.isfinite()).sum()
            self._sums += dice_sums(scores, mask, self._current)

    def compute(self) -> dict[str, float]:
        """Dice over all processes; NaN, with a warning, without an anomalous pixel. ValueError for NaN, Inf scores."""
        sums, not_finite = all_reduce_sum(self._sums.clone(), self._not_finite.clone())
        if not_finite:
            raise ValueError(f"{int(not_finite)} anomaly scores are NaN or Inf, expected finite numbers")
        result = {name: float(value) for name, value in dice_of_sums(sums).items()}
        warn_undefined(result, "found no anomalous pixel, expected at least one image with an anomaly")
        return result


def dice_sums(scores: Tensor, mask: Tensor, thresholds: Tensor) -> Tensor:
    """Summands of one image, float64 ``[5,T]``, for :func:`dice_of_sums`.

    Args:
        scores: anomaly map of any shape.
        mask: bool, the same shape.
        thresholds: ``[T]`` float32.
    """
    predicted, mask = scores.float().flatten() >= thresholds[:, None], mask.flatten()
    counts = torch.stack([(predicted & mask).sum(1), predicted.sum(1), mask.sum().expand(len(thresholds))]).double()
    counts[:2, thresholds.isnan()] = torch.nan  # an older model has no threshold for the finer rates
    has_anomaly = counts[2] > 0
    return torch.cat([counts, torch.stack([torch.where(has_anomaly, dice_of_counts(counts), 0), has_anomaly.double()])])


def dice_of_sums(sums: Tensor) -> dict[str, Tensor]:
    """Pooled Dice and mean Dice per image ``[...]`` by name; NaN without an anomalous pixel.

    Args:
        sums: ``[...,5,T]`` true positives, predicted and actual pixels, sum of the images' Dice, images that have one.
    """
    # Without an anomalous pixel Dice would be 0 however few pixels are predicted.
    pooled = torch.where(sums[..., 2, :] > 0, dice_of_counts(sums.movedim(-2, 0)), torch.nan)
    per_image = sums[..., 3, :] / sums[..., 4, :]
    names = [f"pixel_dice_fpr{100 * fpr:g}" for fpr in FALSE_POSITIVE_RATES]
    return dict(zip(names, pooled.unbind(-1), strict=True)) | {
        f"{name}_per_image": mean for name, mean in zip(names, per_image.unbind(-1), strict=True)
    }


def resolve_thresholds(thresholds: Thresholds, rates: Sequence[float]) -> Tensor:
    """``[T]`` float32; raises :class:`ValueError` unless there is one for each false positive rate."""
    found = thresholds() if callable(thresholds) else thresholds
    resolved = torch.as_tensor(found, dtype=torch.float32).flatten()
    if len(resolved) != len(rates) or resolved.isnan().all():
        raise ValueError(
            f"found thresholds {resolved.tolist()}, expected {len(rates)} numbers for the false positive "
            f"rates {list(rates)}: calibrate the model first (train does)"
        )
    return resolved


def overlap_counts(predicted: Tensor, mask: Tensor) -> Tensor:
    """True positives, predicted and actual pixels of two bool tensors of one shape, int64 ``[3]``."""
    # A sum of bools is one of an int64 copy: eight bytes a voxel.
    return torch.stack([part.count_nonzero() for part in (predicted & mask, predicted, mask)])


def dice_of_counts(counts: Tensor) -> Tensor:
    """True positives, predicted and actual pixels ``[3 or more, ...]`` to Dice ``[...]``."""
    return 2 * counts[0] / (counts[1] + counts[2])
