"""Conformal p-values: how unusual an image score is among those of normal images that the model has not seen."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from dino_uad.detector.groups import numbered
from dino_uad.exact import running_sum

LEVELS = 1024
EXACT_TAIL = 512  # the highest scores, which decide about small p-values, are never thinned out


class ConformalTable(nn.Module):
    """The scores of normal calibration images, in buffers of constant size.

    *One score a group* (split conformal prediction; Vovk et al. 2005): among K exchangeable groups and a new one, the
    p-value ``(1 + #{k: s_k >= s}) / (K + 1)`` is at most alpha with a probability of at most alpha. *Several scores a
    group* (slices of a patient) are not exchangeable with those of other groups; each group then counts once, shared
    out over its scores: ``(1 + sum_k mean_i 1{s_ki >= s}) / (K + 1)`` has the same guarantee for a random image of a
    new group (hierarchical conformal prediction; Lee, Barber & Willett 2023, "Distribution-free inference with
    hierarchical data"). The ``1 +`` is the finite-sample correction: no p-value is below ``1 / (K + 1)``.

    Beyond :data:`LEVELS` distinct scores, some of the lower ones are dropped, and a p-value is rounded up to the one of
    the next lower score kept: the guarantee stays.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", torch.full((LEVELS,), torch.inf))
        self.register_buffer("above", torch.zeros(LEVELS + 1))
        self.register_buffer("groups", torch.zeros((), dtype=torch.int64))

    def fit(self, scores: Tensor, groups: Sequence[Hashable]) -> None:
        """Take in the calibration scores ``[n]`` and the group of each.

        Raises:
            ValueError: no scores, another number of groups, or scores that are not finite.
        """
        scores = scores.detach().double().cpu().flatten()
        if not len(scores) or len(scores) != len(groups) or not scores.isfinite().all():
            raise ValueError(
                f"{len(scores)} scores of {len(groups)} groups found; expected finite ones, one group each"
            )
        names, member = numbered(groups)
        share = 1 / member.bincount().double()[member]
        distinct, place = scores.float().unique(return_inverse=True)
        mass = torch.zeros(len(distinct), dtype=torch.float64).index_add_(0, place, share)
        over = running_sum(mass.flip(0)).flip(0) - mass  # groups' shares of scores above each distinct one
        kept = _kept(len(distinct))
        self.levels.fill_(torch.inf)[: len(kept)] = distinct[kept]
        self.above.zero_()[0] = len(names)
        self.above[1 : len(kept) + 1] = over[kept].clamp(min=0)
        self.groups.fill_(len(names))

    @property
    def calibrated(self) -> bool:
        """Whether there are scores to compare with."""
        return bool(self.groups > 0)

    @property
    def smallest_p(self) -> float:
        """The p-value of a score above all others: no lower level can be promised. NaN if not calibrated."""
        return 1 / (int(self.groups) + 1) if self.calibrated else math.nan

    def p_values(self, scores: Tensor) -> Tensor:
        """Float64, like ``scores``; NaN if not calibrated or where the score is."""
        if not self.calibrated:
            return torch.full_like(scores, torch.nan, dtype=torch.float64)
        place = torch.searchsorted(self.levels, scores.detach().to(self.levels).contiguous())
        p_values = (1 + self.above.double()[place]) / (int(self.groups) + 1)
        return torch.where(scores.isnan().to(p_values.device), torch.nan, p_values).to(scores.device)

    def flagged(self, p_value: float, level: float) -> bool | None:
        """Whether an image of this p-value is flagged at ``level``; None where so low a level cannot be promised."""
        if not self.calibrated or math.isnan(p_value) or self.smallest_p > level * (1 + 1e-6):
            return None
        return p_value <= level * (1 + 1e-6)  # the table is float32

    def masses(self) -> tuple[Tensor, Tensor]:
        """Distinct scores ascending, and how many groups (shared out over their scores) have each; for charts."""
        kept = self.levels.isfinite()
        levels = self.levels[kept].double()
        return levels.cpu(), -self.above[: len(levels) + 1].double().diff().cpu()

    def threshold(self, level: float) -> float:
        """The score above which images are flagged at ``level``; infinite where so low a level cannot be promised."""
        allowed = level * (1 + 1e-6) * (int(self.groups) + 1) - 1
        fits = (self.above[1:].double() <= allowed) & self.levels.isfinite()
        return float(self.levels[int(fits.int().argmax())]) if self.calibrated and fits.any() else math.inf


def scan_scores(scores: Tensor, groups: Sequence[Hashable]) -> tuple[Tensor, list[Hashable]]:
    """The largest score of each group ``[K]``, as a scan is scored by its highest slice, and the groups."""
    names, member = numbered(groups)
    start = scores.new_full((len(names),), -torch.inf)
    return start.scatter_reduce(0, member.to(scores.device), scores, "amax"), names


def _kept(count: int) -> Tensor:
    """Which of ``count`` ascending distinct scores to keep."""
    if count <= LEVELS:
        return torch.arange(count)
    thinned = torch.linspace(0, count - EXACT_TAIL - 1, LEVELS - EXACT_TAIL).long()
    return torch.cat([thinned, torch.arange(count - EXACT_TAIL, count)])
