"""What the label maps of inference come to: how much of a lesion they mark, and how often nothing in a normal image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from dino_uad.detector import FALSE_POSITIVE_RATES
from dino_uad.findings import components
from dino_uad.metrics.dice import Thresholds, dice_of_counts, overlap_counts, resolve_thresholds
from dino_uad.metrics.maps import Maps, volumes_of, warn_undefined
from dino_uad.parallel import all_reduce_sum


class LabelMaps(Metric):
    """Measures label maps at the free-response threshold, grown down to each of the rates, and not grown.

    ``label_dice`` is pooled over all voxels, ``label_dice_per_scan`` the mean over the scans with a lesion (0 where
    nothing is marked in it); ``label_dice_grow5`` and so on the same of findings that extend down to the threshold at
    5 %. Without growth also ``label_lesion_scans``, the share of scans with a lesion that is marked somewhere, and
    ``label_empty_normal``, the share of normal images (slices) with an empty label map.

    Args:
        threshold: of the free-response operating point, or a function that returns it; NaN, of a model that is not
            calibrated so, leaves all out.
        grow: ``[T]`` thresholds to grow down to, or a function that returns them; one above ``threshold`` grows none.
        rates: the T false positive rates that ``grow`` stands for; they name the results.
        output_transform: from the engine's output to ``(y_pred, y, scans)``, as for :class:`FROC`.
        device: on which processes exchange counts.
    """

    def __init__(
        self,
        threshold: float | Tensor | Callable[[], Tensor],
        grow: Thresholds = (),
        rates: Sequence[float] = FALSE_POSITIVE_RATES,
        output_transform: Callable = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        self.threshold, self.grow, self.rates = threshold, grow, tuple(rates)
        super().__init__(output_transform, device, skip_unrolling=True, metrics_result_mode="flatten")

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all scans."""
        self._levels: tuple[float, list[float]] | None = None
        self._overlap = torch.zeros((4, 1 + len(self.rates)), dtype=torch.float64)  # TP, marked, anomalous, sum of Dice
        self._seen = torch.zeros(4, dtype=torch.float64)  # lesion scans, marked ones; normal images, empty ones

    @reinit__is_reduced
    def update(self, output: tuple[Maps, Maps, Sequence[int]]) -> None:
        """Add the scans of a batch, which holds all slices of a volume."""
        if self._calibrated():
            for scores, mask in volumes_of(*output):
                self._add(scores, mask)

    def _calibrated(self) -> bool:
        """Read the thresholds once after a reset, of a model that is loaded by then."""
        if self._levels is None:
            high = float(self.threshold() if callable(self.threshold) else self.threshold)
            lows = resolve_thresholds(self.grow, self.rates).tolist() if self.rates else []
            self._levels = high, [high, *(min(low, high) if low == low else high for low in lows)]
        return self._levels[0] == self._levels[0]

    def _add(self, scores: Tensor, mask: Tensor) -> None:
        """One scan: scores and mask ``[D,H,W]``."""
        high, lows = self._levels
        values, counts = scores.float().numpy(), []
        for level, low in enumerate(lows):  # one after the other: a scan may have 10^8 voxels
            label = torch.from_numpy(components(values, high, low)[0] > 0)
            counts.append(overlap_counts(label, mask))
            if level == 0:
                normal, empty = (~one.flatten(1).any(dim=1) for one in (mask, label))
        counts = torch.stack(counts, dim=1).double()
        self._overlap[:3] += counts
        self._seen[2:] += torch.stack([normal.sum(), (normal & empty).sum()])
        if not normal.all():
            self._overlap[3] += dice_of_counts(counts)
            self._seen[:2] += torch.tensor([1.0, float(counts[0, 0] > 0)])

    def compute(self) -> dict[str, float]:
        """Shares and Dice over all processes; NaN, with a warning, without a lesion or a normal image."""
        if not self._calibrated():
            return {}
        overlap, seen = all_reduce_sum(self._overlap.clone().to(self._device), self._seen.clone().to(self._device))
        pooled = torch.where(overlap[2] > 0, dice_of_counts(overlap), torch.nan)
        result, names = {}, ["", *(f"_grow{100 * rate:g}" for rate in self.rates)]
        for name, dice, total in zip(names, pooled, overlap[3], strict=True):
            result |= {f"label_dice{name}": float(dice), f"label_dice{name}_per_scan": float(total / seen[0])}
        result |= {"label_lesion_scans": float(seen[1] / seen[0]), "label_empty_normal": float(seen[3] / seen[2])}
        warn_undefined(result, "found no lesion, or no normal image, expected at least one of each")
        return result
