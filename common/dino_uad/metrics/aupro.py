"""Area under the per-region-overlap curve (AUPRO)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from scipy import ndimage
from torch import Tensor

from dino_uad.metrics.histogram import DEFAULT_BINS, ScoreHistogram
from dino_uad.metrics.maps import Maps, paired_images, warn_undefined
from dino_uad.parallel import all_reduce_sum


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
        if not 0 < limit <= 1:
            raise ValueError(f"found limit={limit}, expected a false positive rate in (0, 1]")
        self.limit, self.bins = limit, bins
        super().__init__(output_transform, device, skip_unrolling=True)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all pixels."""
        self.histogram = ScoreHistogram(2, self.bins, self._device, torch.float64)
        self._regions = torch.zeros((), dtype=torch.int64, device=self._device)

    @reinit__is_reduced
    def update(self, output: tuple[Maps, Maps]) -> None:
        """Count the pixels of ``(y_pred, y)``; raises :class:`ValueError` for NaN or Inf scores, unequal shapes."""
        for scores, mask in paired_images(*output):
            weights, regions = region_weights(mask[0])
            self.histogram.update(scores[0], mask[0], weights)
            self._regions += regions

    def compute(self) -> float:
        """AUPRO over all processes; NaN, with a warning, without a region or without a normal pixel."""
        histogram = self.histogram.all_reduced()
        histogram.require_finite()
        (regions,) = all_reduce_sum(self._regions.clone())
        normal, overlap = histogram.counts.flip(1).cumsum(1)
        value = float(area_up_to(normal / normal[-1], overlap / regions, self.limit))
        warn_undefined({"aupro": value}, f"found {int(regions)} regions and {int(normal[-1])} normal pixels")
        return value


def region_weights(mask: Tensor) -> tuple[Tensor, int]:
    """``1/|region|`` for each pixel of a connected region of ``mask [H,W]``, 1 elsewhere; and the number of regions."""
    array = mask.cpu().numpy()
    weights, regions = np.ones(array.shape), 0
    if array.any():
        labels, regions = ndimage.label(array, structure=np.ones((3,) * array.ndim))
        inside = labels[array]
        weights[array] = 1 / np.bincount(inside)[inside]
    return torch.from_numpy(weights), regions


def area_up_to(fpr: Tensor, overlap: Tensor, limit: float) -> Tensor:
    """Normalised trapezoid area under ``overlap [K]`` over ascending ``fpr [K]`` from (0, 0) to ``limit``."""
    fpr, overlap = (torch.cat([curve.new_zeros(1), curve]) for curve in (fpr, overlap))
    inside = fpr <= limit
    last = int(inside.sum()) - 1
    x, y = fpr[inside], overlap[inside]
    if last + 1 < len(fpr):
        slope = (overlap[last + 1] - overlap[last]) / (fpr[last + 1] - fpr[last])
        x = torch.cat([x, x.new_tensor([limit])])
        y = torch.cat([y, (overlap[last] + slope * (limit - fpr[last])).reshape(1)])
    return torch.trapezoid(y, x) / limit if x.isfinite().all() and y.isfinite().all() else fpr.new_tensor(torch.nan)
