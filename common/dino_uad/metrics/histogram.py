"""A histogram of anomaly scores of unknown scale, in constant memory, that merges exactly.

float32 numbers order like the integers behind their bits, so a score becomes a 32-bit *key* and a bin is a run of
``2**shift`` neighbouring keys. ``shift`` is the smallest with which the keys seen so far fit into ``bins`` bins; when a
score falls outside, bins are joined two by two. The bins are therefore a function of the smallest and the largest score
alone: neither the order of the updates nor the distribution over processes changes the result.
"""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from torch import Tensor

from dino_uad.parallel import all_reduce_sum, is_distributed

INF_KEY = 0x7F800000
"""Key of +Inf; NaN lies beyond it on either side."""
CHUNK = 1 << 18
"""Scores processed at a time, which bounds the temporary memory."""
DEFAULT_BINS = 1 << 20


def score_to_key(scores: Tensor) -> Tensor:
    """int32 keys in the order of float32 ``scores``; both zeros are key 0, and keys of x and -x are opposite."""
    bits = scores.view(torch.int32)
    sign = bits >> 31
    return ((bits & 0x7FFFFFFF) ^ sign).sub_(sign)


def key_to_score(keys: Tensor) -> Tensor:
    """Inverse of :func:`score_to_key`; keys beyond the infinities give the infinities."""
    magnitude = keys.abs().clamp_max(INF_KEY).to(torch.int32).view(torch.float32)
    return torch.where(keys < 0, -magnitude, magnitude)


class ScoreHistogram:
    """Counts of float32 scores, in ``rows`` separate rows (for instance normal and anomalous pixels).

    Resolution, with the default of 2**20 bins: scores whose float32 representations span fewer than 2**20 steps are
    kept apart exactly; scores of one sign within a factor of 16 have bins no wider than 2**-17 of their value; any
    finite scores at all, bins no wider than 2**-11 of their value (2**-149 x 4096 for denormal numbers). In general a
    bin spans ``2**shift`` neighbouring floats, at most ``2 / (bins - 1)`` of those between the smallest and the largest
    score. How far a number can be off because of that is :func:`dino_uad.metrics.curves.error_bounds`.

    Args:
        rows: number of histograms over the same bins.
        bins: number of bins, the memory is ``8 * rows * bins`` bytes.
        device: where counts live and updates run; on CUDA updates do not wait for the device.
        dtype: int64 for counts, float64 for weights.
    """

    def __init__(
        self,
        rows: int = 2,
        bins: int = DEFAULT_BINS,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.int64,
    ) -> None:
        self.bins = bins
        self.counts = torch.zeros((rows, bins), dtype=dtype, device=device)
        # Smallest and largest key so far, crossed over while there are none.
        self.low = torch.full((), 2**31 - 1, device=device)
        self.high = torch.full((), -(2**31), device=device)

    def update(self, scores: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> None:
        """Add ``scores`` of any shape and floating type.

        Args:
            scores: anomaly scores; rounded to float32.
            rows: same shape, bool or integer: the row to count each score in, row 0 when None.
            weights: same shape, what each score adds, 1 when None.

        Raises:
            ValueError: a score is NaN or Inf. On CUDA it is raised by :meth:`require_finite` instead, so as not to
                wait for the device here.
        """
        device = self.counts.device
        columns = [None if t is None else t.reshape(-1).to(device) for t in (scores, rows, weights)]
        for start in range(0, scores.numel(), CHUNK):
            self._update_chunk(*(None if column is None else column[start : start + CHUNK] for column in columns))

    def _update_chunk(self, scores: Tensor, rows: Tensor | None, weights: Tensor | None) -> None:
        keys = score_to_key(scores.float().contiguous())
        low, high = (extreme.long() for extreme in keys.aminmax())
        if not keys.is_cuda:
            _require_finite(low, high)
        self._widen(torch.minimum(self.low, low), torch.maximum(self.high, high))
        shift, base = self.grid()
        index = (keys >> shift).sub_(base)
        if rows is not None:
            index = index.add_(rows.to(index.dtype), alpha=self.bins)
        if weights is None:
            weights = self.counts.new_ones(1).expand(len(index))
        self.counts.view(-1).index_add_(0, index, weights.to(self.counts.dtype))

    def require_finite(self) -> None:
        """Raise :class:`ValueError` if a NaN or Inf score was added; waits for the device."""
        _require_finite(self.low, self.high)

    def merge(self, other: ScoreHistogram) -> None:
        """Add another histogram of as many rows and bins."""
        self._widen(torch.minimum(self.low, other.low), torch.maximum(self.high, other.high))
        self.counts += other.between(self.low, self.high).counts

    def between(self, low: Tensor, high: Tensor) -> ScoreHistogram:
        """The same counts on the grid of a wider range of keys."""
        wider = copy.copy(self)
        wider._widen(low, high)
        return wider

    def key_range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest key over all processes; crossed over when there are no scores at all."""
        low, high = self.low.clone(), self.high.clone()
        if is_distributed():
            dist.all_reduce(low, dist.ReduceOp.MIN)
            dist.all_reduce(high, dist.ReduceOp.MAX)
        return low, high

    def all_reduced(self) -> ScoreHistogram:
        """The sum of all processes' histograms; this one is left as it is."""
        total = self.between(*self.key_range())
        total.counts = total.counts.clone()
        all_reduce_sum(total.counts)
        return total

    def lower_edges(self) -> Tensor:
        """Smallest float32 score of each bin, ``[bins + 1]``; the last is beyond every score."""
        shift, base = self.grid()
        edges = (base + torch.arange(self.bins + 1, device=base.device)) << shift
        return key_to_score(torch.minimum(edges, self.high + 1))

    def grid(self) -> tuple[Tensor, Tensor]:
        """``shift`` and first bin: the bin of a key is ``(key >> shift) - first``, and holds ``2**shift`` keys."""
        return self._grid(self.low, self.high)

    def _grid(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """``shift`` and first bin for keys from ``low`` to ``high``, as tensors: nothing waits for the device."""
        shifts = torch.arange(32, device=low.device)
        shift = ((high >> shifts) - (low >> shifts) >= self.bins).sum()
        return shift, low >> shift

    def _widen(self, low: Tensor, high: Tensor) -> None:
        """Move the counts to the grid of a range of keys that includes the present one."""
        shift, base = self.grid()
        new_shift, new_base = self._grid(low, high)
        self.low, self.high = low, high
        # Comparing would make the host wait for a CUDA device, where moving the counts costs less than that.
        if not low.is_cuda and shift == new_shift and base == new_base:
            return
        target = torch.arange(self.bins, device=base.device).add_(base)
        target.bitwise_right_shift_(new_shift - shift).sub_(new_base)
        # Bins that fall outside are empty: all scores lie between low and high.
        target.clamp_(0, self.bins - 1)
        self.counts = torch.zeros_like(self.counts).index_add_(1, target, self.counts)


def _require_finite(low: Tensor, high: Tensor) -> None:
    reach = max(-int(low), int(high))
    if reach >= INF_KEY:
        found = "NaN" if reach > INF_KEY else "Inf (or a number beyond the range of float32)"
        raise ValueError(
            f"anomaly scores contain {found}, expected finite numbers: check the input images for NaN or Inf voxels "
            "and the fitted head for NaN parameters"
        )
