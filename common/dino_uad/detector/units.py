"""One unit for all methods: how rare a score is among the patches of normal validation images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dino_uad.exact import running_sum

KNOTS = 64
TAIL = 0.01  # share of the patches to which the tail is fitted
FEWEST = 50  # patches that a tail is fitted to
SHAPES = (1e-3, 0.5)  # of the tail, the exponential's and one whose variance is infinite


class Units(nn.Module):
    """Scores as ``-log10`` of the share of normal patches that score higher: 1 is one in 10, 3 one in 1000.

    Between quantiles it interpolates linearly. Beyond the last one, where few patches were seen, a generalised Pareto
    distribution continues it, whose scale and shape are those of the patches there by probability-weighted moments
    (Hosking and Wallis, Technometrics 1987, eq. 7). A tail that would end is taken for an exponential one: no score is
    called impossible because none was seen. The table's size does not depend on the data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("knots", torch.full((KNOTS,), torch.nan))
        self.register_buffer("levels", torch.full((KNOTS,), torch.nan))
        self.register_buffer("tail", torch.full((2,), torch.nan))  # scale and shape

    @property
    def fitted(self) -> bool:
        return not bool(self.tail.isnan().any())

    def fit(self, values: Tensor, counts: Tensor) -> None:
        """Learn the table.

        Args:
            values: ascending scores ``[n]`` of normal patches.
            counts: how often each was seen, ``[n]``.
        """
        values, counts = values.double(), counts.double()
        levels, places = self.knot_places(counts)
        knots = values[places]
        self.knots.copy_(knots)
        self.levels.copy_(levels)
        beyond = values > knots[-1]
        self.tail.copy_(torch.tensor(_pareto(values[beyond] - knots[-1], counts[beyond], knots[-1] - knots[0])))

    @staticmethod
    def knot_places(counts: Tensor) -> tuple[Tensor, Tensor]:
        """The table's levels ``[KNOTS]``, and for each the first of ascending scores that so few patches are above.

        Args:
            counts: how often each score was seen, ``[n]``.
        """
        counts = counts.double()
        higher = (counts.sum() - running_sum(counts)) / counts.sum()  # share of patches above each score
        tail = min(max(TAIL, FEWEST / float(counts.sum())), 0.5)
        levels = torch.linspace(0, -math.log10(tail), KNOTS, dtype=torch.float64, device=counts.device)
        places = torch.searchsorted(-higher, -(10**-levels))
        places[0] = 0
        return levels, places

    def forward(self, scores: Tensor) -> Tensor:
        """Scores of any shape in these units, at least 0, as float32."""
        scores = scores.float()
        # A sum over the intervals, not a search: it is monotone, and can be traced and exported.
        width = (self.knots[1:] - self.knots[:-1]).clamp_min(torch.finfo(torch.float32).tiny)
        inside = ((scores[..., None] - self.knots[:-1]) / width).clamp(0, 1)
        table = (inside * (self.levels[1:] - self.levels[:-1])).sum(dim=-1)
        excess = (scores - self.knots[-1]).clamp_min(0) / self.tail[0]
        return table + torch.log1p(self.tail[1] * excess) / (self.tail[1] * math.log(10))


def _pareto(excess: Tensor, counts: Tensor, spread: Tensor) -> tuple[float, float]:
    """Scale and shape of a generalised Pareto distribution from ascending excesses ``[n]``, seen ``counts`` times."""
    total = float(counts.sum())
    if total < 2 or float(excess[-1]) <= 0:
        return max(float(spread), 1e-12), SHAPES[0]
    before = running_sum(counts) - counts
    rank = (before + (counts + 1) / 2 - 0.35) / total  # plotting positions, the mean ones of equal scores
    mean = float((counts * excess).sum()) / total
    upper = float((counts * excess * (1 - rank)).sum()) / total
    # Hosking and Wallis' -k; 0 for an exponential tail, below for one that ends
    shape = 2 - mean / max(mean - 2 * upper, 1e-12 * mean)
    shape = min(max(shape, SHAPES[0]), SHAPES[1])
    return mean * (1 - shape), shape
