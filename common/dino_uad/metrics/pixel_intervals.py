"""Bootstrap confidence intervals of the pixel metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from dino_uad.detector import FALSE_POSITIVE_RATES
from dino_uad.metrics.aupro import all_region_weights, aupro
from dino_uad.metrics.bootstrap import Group, gather_units, group_keys, percentile_intervals, why_undefined
from dino_uad.metrics.curves import CURVES
from dino_uad.metrics.dice import Thresholds, dice_of_sums, dice_sums, resolve_thresholds
from dino_uad.metrics.group_levels import GroupLevels
from dino_uad.metrics.maps import Maps, paired_images, warn_undefined
from dino_uad.parallel import gather_rows


class PixelIntervals(Metric):
    """Intervals ``<name>_low``, ``<name>_high`` of AUROC, AUPR, largest F1, AUPRO, and Dice at each threshold.

    The names are those of :class:`~dino_uad.metrics.PixelCurves` and :class:`~dino_uad.metrics.DiceAtThresholds`, and
    ``pixel_aupro``. For the method see :mod:`dino_uad.metrics.bootstrap`; for what is kept of a group's pixels, and how
    far that moves a number, :class:`~dino_uad.metrics.group_levels.GroupLevels`. Dice is exact, ``40 T`` bytes a group.

    Args:
        thresholds: as of :class:`~dino_uad.metrics.DiceAtThresholds`.
        output_transform: from the engine's output to ``(y_pred, y, groups)``; maps are ``[B,1,H,W]`` or lists of
            ``[1,H,W]``, groups B integers or strings such as patient ids.
        limit: of AUPRO.
        replicates: number of bootstrap samples.
        confidence: coverage of the interval.
        seed: of the generator that draws them.
        device: where samples are computed; regions and levels are made on the CPU.
    """

    def __init__(
        self,
        thresholds: Thresholds,
        output_transform: Callable = lambda output: output,
        limit: float = 0.3,
        replicates: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.thresholds, self.limit = thresholds, limit
        self.replicates, self.confidence, self.seed = replicates, confidence, seed
        super().__init__(output_transform, device, skip_unrolling=True, metrics_result_mode="flatten")

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all images."""
        self._current: Tensor | None = None
        self._levels = GroupLevels(weights=1, device=self._device)
        self._dice: dict[int, Tensor] = {}

    @reinit__is_reduced
    def update(self, output: tuple[Maps, Maps, Sequence[Group]]) -> None:
        """Add the images of a batch; raises :class:`ValueError` for NaN or Inf scores, unequal shapes or lengths."""
        if self._current is None:
            self._current = resolve_thresholds(self.thresholds, FALSE_POSITIVE_RATES).to(self._device)
        maps, masks, groups = output
        pairs = list(paired_images(maps, masks))
        keys, weights = group_keys(groups, len(pairs)), all_region_weights([mask[0] for _, mask in pairs], "cpu")
        for (scores, mask), key, weight in zip(pairs, keys, weights, strict=True):
            self._levels.add(key, scores[0], mask[0], [weight * mask[0].cpu()])
            dice = dice_sums(scores.to(self._device), mask.to(self._device), self._current)
            self._dice[key] = self._dice.get(key, 0) + dice

    def compute(self) -> dict[str, float]:
        """Lower and upper end of each interval over all processes; NaN, with a warning, for one class or one group."""
        units, place = gather_units(self._levels.keys, self._device)
        counts = self._levels.counts()
        mine = torch.stack([*self._dice.values()]) if self._dice else torch.zeros(0, 5, len(FALSE_POSITIVE_RATES))
        gathered = gather_rows(mine.double().to(self._device))
        dice = gathered.new_zeros((units, *gathered.shape[1:])).index_add_(0, place, gathered)
        result = percentile_intervals(
            lambda times: self._metrics(_weighted(times, counts), _weighted(times, dice)),
            units,
            self.replicates,
            self.seed,
            self.confidence,
            self._device,
        )
        warn_undefined(result, why_undefined(units, "pixels"))
        return result

    def _metrics(self, counts: Tensor, dice: Tensor) -> dict[str, Tensor]:
        """Values ``[R]`` of R samples, from their levels ``[R,3,K]`` and sums ``[R,5,T]``.

        The third row has anomalous pixels that weigh 1 / size of their region.
        """
        normal, anomalous, overlap = counts.unbind(1)
        curves = {f"pixel_{name}": curve(normal, anomalous) for name, curve in CURVES.items()}
        return curves | {"pixel_aupro": aupro(normal, overlap, self.limit)} | dice_of_sums(dice)


def _weighted(times: Tensor, rows: Tensor) -> Tensor:
    """Sums ``[R,...]`` of the units' ``rows [units,...]`` in R samples that draw them ``times [R,units]``."""
    return (times @ rows.flatten(1)).view(len(times), *rows.shape[1:])
