"""Area under the per-region-overlap curve (AUPRO)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from scipy import ndimage
from torch import Tensor

from dino_uad.exact import running_sum
from dino_uad.metrics.histogram import DEFAULT_BINS, ScoreHistogram
from dino_uad.metrics.maps import Maps, paired_images, warn_undefined
from dino_uad.settings import require_number
from dino_uad.transfer import move_together

TOGETHER = 16  # images whose weights, 8 bytes a pixel, are held and moved at once


class AUPRO(Metric):
    """``aupro``: mean overlap of ground-truth regions against the pixel false positive rate, area up to ``limit``.

    Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.1. Regions are connected components
    (8-connected in 2-D, 26-connected in 3-D) of each mask. The mean overlap of R regions at a threshold is
    ``1/R sum_r |{x in r : s(x) >= t}| / |r|``, so one histogram in which a pixel of region r weighs ``1/|r|`` holds all
    regions: memory is constant, ``16 * bins`` bytes, and processes sum it.

    Error: inside a bin the curve rises monotonically between two known points, so the area is off by at most
    ``sum_b dFPR_b dPRO_b / (2 limit)``; zero if the scores span at most ``bins`` neighbouring float32 numbers.

    Args:
        output_transform: from the engine's output to ``(y_pred, y)``, both ``[B,1,H,W]`` or lists of ``[1,H,W]``.
        limit: largest false positive rate, in (0, 1]; the area is divided by it.
        bins: number of bins of the histogram.
        device: where the histogram lives; regions are labelled on the CPU.
    """

    def __init__(
        self,
        output_transform: Callable = lambda output: output,
        limit: float = 0.3,
        bins: int = DEFAULT_BINS,
        device: str | torch.device = "cpu",
    ) -> None:
        require_number("limit", limit, 0, 1, ends="(]")
        self.limit, self.bins = limit, bins
        super().__init__(output_transform, device, skip_unrolling=True)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all pixels."""
        self.histogram = ScoreHistogram(2, self.bins, self._device, torch.float64)

    @reinit__is_reduced
    def update(self, output: tuple[Maps, Maps]) -> None:
        """Count the pixels of ``(y_pred, y)``; raises :class:`ValueError` for NaN or Inf scores, unequal shapes."""
        pairs = list(paired_images(*output))
        weights = all_region_weights([mask[0] for _, mask in pairs], self._device)
        for (scores, mask), weight in zip(pairs, weights, strict=True):
            self.histogram.update(scores[0], mask[0], weight)

    def compute(self) -> float:
        """AUPRO over all processes; NaN, with a warning, without a region or without a normal pixel."""
        histogram = self.histogram.all_reduced()
        histogram.require_finite()
        normal, overlap = histogram.counts
        value = float(aupro(normal, overlap, self.limit))
        found = f"{round(float(overlap.sum()))} regions and {int(normal.sum())} normal pixels"
        warn_undefined({"aupro": value}, f"found {found}, expected some of both")
        return value


def all_region_weights(masks: Sequence[Tensor], device: torch.device | str) -> Iterator[Tensor]:
    """:func:`region_weights` of many masks, one after the other; of a volume's slices all at once are twice its size.

    Args:
        masks: bool ``[H,W]`` or ``[H,W,D]`` each, of any sizes; regions are found on the CPU.
        device: where the weights go, :data:`TOGETHER` in one copy.

    Yields:
        float64, of the masks' shapes.
    """
    for some in (masks[i : i + TOGETHER] for i in range(0, len(masks), TOGETHER)):
        yield from move_together([region_weights(mask) for mask in move_together(some, "cpu")], device)


def region_weights(mask: Tensor) -> Tensor:
    """``1/|region|`` for each pixel of a connected region of ``mask [H,W]``, so that regions sum to 1; 1 elsewhere."""
    array = mask.numpy()
    weights = np.ones(array.shape)
    if array.any():
        labels, _ = ndimage.label(array, structure=np.ones((3,) * array.ndim))
        inside = labels[array]
        weights[array] = 1 / np.bincount(inside)[inside]
    return torch.from_numpy(weights)


def aupro(normal: Tensor, overlap: Tensor, limit: float) -> Tensor:
    """Normalised trapezoid area under the mean region overlap for false positive rates from 0 to ``limit``.

    Args:
        normal: ``[...,K]`` normal pixels at K levels, ascending in score.
        overlap: ``[...,K]`` anomalous pixels there, each weighing 1 / size of its region; the total is the number of
            regions.
        limit: in (0, 1].

    Returns:
        ``[...]`` float64; NaN without a region or without a normal pixel.
    """
    fpr, pro = (_from_the_top(counts) for counts in (normal, overlap))
    width = fpr.diff()
    inside = (limit - fpr[..., :-1]).clamp_min(0).minimum(width)
    # A level without normal pixels is a vertical step of the curve, with no area below it.
    share = torch.where(width > 0, inside / width, 0)
    area = inside * (pro[..., :-1] + pro.diff() * share / 2)
    return torch.where((fpr + pro)[..., -1].isfinite(), area.sum(-1) / limit, torch.nan)


def _from_the_top(counts: Tensor) -> Tensor:
    """Share of the counts ``[...,K]`` at or above each level, from the highest down: ``[...,K+1]`` from 0 to 1."""
    reached = F.pad(running_sum(counts.double().flip(-1)), (1, 0))
    return reached / reached[..., -1:]
