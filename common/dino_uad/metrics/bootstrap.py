"""Bootstrap confidence intervals of the pixel metrics, resampling whole images or patients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from dino_uad.metrics.curves import CURVES
from dino_uad.metrics.image_histograms import IMAGE_BINS, ImageHistograms
from dino_uad.metrics.maps import Maps, paired_images, warn_undefined
from dino_uad.parallel import gather_rows

REPLICATES_AT_A_TIME = 64


class BootstrapIntervals(Metric):
    """Percentile intervals ``pixel_auroc_low``, ``pixel_auroc_high``, likewise for ``pixel_aupr``, ``pixel_f1_max``.

    Pixels of an image, and slices of a patient, are not independent, so the unit that is drawn with replacement is the
    image, or the group where group ids are given (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).
    Keeps a histogram of ``8 * bins`` bytes per image, never the pixels; its coarser bins move the curve numbers by
    about 1e-3, well below the width of an interval. Replicates that draw no anomalous pixel are left out.

    Args:
        output_transform: from the engine's output to ``(y_pred, y)`` or ``(y_pred, y, groups)``; maps are ``[B,1,H,W]``
            or lists of ``[1,H,W]``, groups B integers or strings such as patient ids.
        replicates: number of bootstrap samples.
        confidence: coverage of the interval.
        seed: of the generator that draws them.
        bins: number of bins per image.
        device: where the histograms live.
    """

    def __init__(
        self,
        output_transform: Callable = lambda output: output,
        replicates: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        bins: int = IMAGE_BINS,
        device: str | torch.device = "cpu",
    ) -> None:
        self.replicates, self.confidence, self.seed, self.bins = replicates, confidence, seed, bins
        super().__init__(output_transform, device, skip_unrolling=True, metrics_result_mode="flatten")

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all images."""
        self.images = ImageHistograms(self.bins, self._device)
        self._groups: list[int] = []
        self._ungrouped = 0

    @reinit__is_reduced
    def update(self, output: tuple[Maps, Maps] | tuple[Maps, Maps, Sequence[int | str]]) -> None:
        """Add the images of a batch; raises :class:`ValueError` for NaN or Inf scores, unequal shapes or lengths."""
        maps, masks, *groups = output
        pairs = list(paired_images(maps, masks))
        ids = [_group_key(group) for group in groups[0]] if groups else []
        if groups and len(ids) != len(pairs):
            raise ValueError(f"found {len(ids)} group ids for {len(pairs)} images, expected one per image")
        for pair in pairs:
            self.images.append(*pair)
        self._groups += ids
        self._ungrouped += 0 if groups else len(pairs)

    def compute(self) -> dict[str, float]:
        """Lower and upper end of each interval over all processes; NaN, with a warning, for a single class."""
        counts = gather_groups(self.images.counts(), self._groups, self._ungrouped)
        tail = (1 - self.confidence) / 2
        samples = bootstrap_curves(counts, self.replicates, self.seed)
        result = {}
        for name, values in samples.items():
            low, high = values.nanquantile(values.new_tensor([tail, 1 - tail])).tolist()
            result |= {f"pixel_{name}_low": low, f"pixel_{name}_high": high}
        warn_undefined(result, "no bootstrap sample held both normal and anomalous pixels")
        return result


def gather_groups(counts: Tensor, groups: Sequence[int], ungrouped: int) -> Tensor:
    """Sum the histograms ``[n,2,K]`` of all processes' images by group: ``[groups,2,K]``; no ids, nothing to sum."""
    ids = gather_rows(torch.tensor(groups, dtype=torch.int64, device=counts.device))
    if len(ids) == 0:
        return counts
    if ungrouped or len(ids) != len(counts):
        raise ValueError(f"found group ids for {len(ids)} of {len(counts)} images, expected all or none")
    unique, index = ids.unique(return_inverse=True)
    return counts.new_zeros((len(unique), *counts.shape[1:]), dtype=torch.int64).index_add_(0, index, counts.long())


def bootstrap_curves(counts: Tensor, replicates: int, seed: int) -> dict[str, Tensor]:
    """Curve numbers ``[replicates]`` of samples, with replacement, of the n histograms ``counts [n,2,K]``."""
    if len(counts) == 0:
        return {name: torch.full((replicates,), torch.nan, dtype=torch.float64) for name in CURVES}
    generator = torch.Generator().manual_seed(seed)
    counts = counts[..., counts.sum(dim=(0, 1)) > 0].double()
    samples: dict[str, list[Tensor]] = {name: [] for name in CURVES}
    for start in range(0, replicates, REPLICATES_AT_A_TIME):
        size = min(REPLICATES_AT_A_TIME, replicates - start)
        drawn = torch.randint(len(counts), (size, len(counts)), generator=generator).to(counts.device)
        times = counts.new_zeros(size, len(counts)).scatter_add_(1, drawn, counts.new_ones(1, 1).expand_as(drawn))
        negatives, positives = (times @ counts.flatten(1)).view(size, *counts.shape[1:]).unbind(1)
        for name, curve in CURVES.items():
            samples[name].append(curve(negatives, positives))
    return {name: torch.cat(values) for name, values in samples.items()}


def _group_key(group: int | str | Tensor) -> int:
    """A number that is the same in every process."""
    if isinstance(group, str):
        return int.from_bytes(hashlib.sha256(group.encode()).digest()[:7], "big")
    return int(group)
