"""Single scores in some bins of a histogram, from a second look: quantiles to the last digit in constant memory."""

from __future__ import annotations

import torch
from torch import Tensor

from dino_uad.metrics.histogram import CHUNK, ScoreHistogram, key_to_score, score_to_key
from dino_uad.parallel import all_reduce_sum


class CloserLook:
    """Tells the scores of chosen bins apart, and knows the mean of every other bin.

    Where scores have both signs or come near 0, a bin holds up to 4096 neighbouring floats. The edge of the bin that a
    quantile lies in is then off by up to 2**-11 of it, and moves by as much when the last digit of a score does: by
    another machine, or by another number of processes. The quantile itself moves by that digit. ``chosen`` bins take
    ``8 * 2**shift`` bytes each, 32 kB at most with the usual number of bins; only the start waits for the device.

    Args:
        histogram: one row of counts of the scores of all processes (:meth:`ScoreHistogram.all_reduced`).
        chosen: ``[n]`` int64, its bins to look into, each once.
    """

    def __init__(self, histogram: ScoreHistogram, chosen: Tensor) -> None:
        self._counts, self._chosen = histogram.counts[0], chosen
        self._shift, self._base = histogram.grid()
        self._width = 1 << int(self._shift)
        # The last row is of all bins that are not looked into.
        self._row = torch.full_like(self._counts, len(chosen), dtype=torch.int32)
        self._row[chosen] = torch.arange(len(chosen), dtype=torch.int32, device=chosen.device)
        self._fine = self._counts.new_zeros((len(chosen) + 1) * self._width)
        self._sums = torch.zeros_like(self._counts, dtype=torch.float64)

    def update(self, scores: Tensor) -> None:
        """Look at scores of any shape again: at all that the histogram counted, each once."""
        for chunk in scores.reshape(-1).to(self._counts.device).float().split(CHUNK):
            keys = score_to_key(chunk.contiguous())
            # Within the histogram, should a GPU's kernel have summed the smallest or largest score in another order.
            index = (keys >> self._shift).sub_(self._base).clamp_(0, len(self._counts) - 1)
            place = self._row[index] * self._width + (keys & (self._width - 1))
            self._fine.index_add_(0, place, self._fine.new_ones(1).expand(len(place)))
            self._sums.index_add_(0, index, chunk.double())

    def levels(self) -> tuple[Tensor, Tensor]:
        """Scores of all processes, ascending ``[m]`` float64, and how often each was seen ``[m]`` int64.

        In a chosen bin these are the scores; any other one, if it is not empty, has one level, its mean.
        """
        fine, sums = all_reduce_sum(self._fine.clone(), self._sums.clone())
        fine = fine.view(-1, self._width)[:-1]
        row, place = fine.nonzero(as_tuple=True)
        inside = key_to_score(((self._base + self._chosen[row]) << self._shift) + place).double()
        others = (self._counts > 0) & (self._row == len(self._chosen))
        values = torch.cat([inside, sums[others] / self._counts[others]])
        values, order = values.sort()
        return values, torch.cat([fine[row, place], self._counts[others]])[order]
