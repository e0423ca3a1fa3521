"""Exact search in two passes: bounds of the similarity to all rows, then the rows that are not excluded.

From time to time the most promising rows of each query are scored in float32. What is found there a bound must reach:
rows with lower ones cannot be neighbours and are forgotten, as are those that were kept before.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dino_uad.heads.anomaly_dino import first_pass
from dino_uad.heads.anomaly_dino.first_pass import Bounds, FirstPass

_A_CANDIDATE = 64  # up to so many rows are scanned in the time in which one candidate is scored
_BEGIN = 64  # rows of the first part, which are all candidates
_WAITING = 1 << 20  # candidates from which on they are scored; bounds the memory
_TOGETHER = 1024  # candidates scored together: in the processor's cache
_ROUNDING = 1e-6  # of scored similarities
_NOTHING = (torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
"""Of candidates: bounds, queries and rows."""


def search(
    queries: Tensor, bank: Tensor, k: int, first: Callable[[Tensor], FirstPass]
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``k`` largest similarities of unit queries ``[Q,C]`` to rows of a bank ``[M,C]``.

    Returns:
        similarities and the rows' indices, ``[Q,k]``, descending; and, ``[Q]``, which queries are crowded: so many
        rows can be a neighbour that a scan of the bank is the shorter way. Theirs are not to be used.
    """
    coarse = first(queries)
    candidates = _Candidates(queries, bank, k)
    begin = min(_BEGIN, coarse.slab)
    for number, start in enumerate([0, *range(begin, len(bank), coarse.slab)]):
        part = slice(start, start + (coarse.slab if start else begin))
        rows, candidates.norms[part] = first_pass.unit(bank[part])
        candidates.add(coarse.bounds(rows), start)
        if number & (number + 1) == 0:  # after 1, 2, 4, 8, ... parts
            candidates.narrow()
    candidates.score_all()
    return candidates.similarity, candidates.index, candidates.crowded


class _Candidates:
    """Rows that can be one of the ``k`` nearest to a query, and the nearest of those that were scored.

    Attributes:
        norms: ``[M]`` of the bank's rows, to be filled in before their bounds are added.
        similarity: ``[Q,k]`` found by scoring, descending; ``-inf`` where too few rows were scored.
        index: ``[Q,k]``, of their rows.
        crowded: ``[Q]`` bool, the queries for which too many rows were found; they get none any more.
    """

    def __init__(self, queries: Tensor, bank: Tensor, k: int) -> None:
        self._queries, self._bank, self._k = queries, bank, k
        self.norms = torch.empty(len(bank))
        self.similarity = torch.full((len(queries), k), -torch.inf)
        self.index = torch.zeros(len(queries), k, dtype=torch.int64)
        self.crowded = torch.zeros(len(queries), dtype=torch.bool)
        self._most = max(len(bank) // _A_CANDIDATE, 2 * k)
        self._scored = torch.zeros(len(queries), dtype=torch.int64)
        self._waiting, self._many = [_NOTHING], 0

    @property
    def _limit(self) -> Tensor:
        """``[Q]`` that a bound must reach."""
        return (self.similarity[:, -1] - _ROUNDING).masked_fill_(self.crowded, torch.inf)

    def add(self, bounds: Bounds, start: int) -> None:
        """Keep the rows that can be neighbours, of those from row ``start`` on."""
        bound, query, row = bounds.reaching(self._limit)
        inside = row < len(self._bank) - start  # the last group is filled up with zeros
        self._waiting.append((bound[inside], query[inside], row[inside] + start))
        self._many += len(bound)
        if self._many > _WAITING:
            self.score_all()

    def narrow(self) -> None:
        """Score the rows of each query that have the highest bounds, and keep what can still be a neighbour."""
        bound, query, row = self._joined()
        highest = _highest(bound, query, len(self._queries), self._k)
        highest = highest[highest >= 0]
        self._score(query[highest], row[highest])
        bound[highest] = -torch.inf
        keep = (bound >= self._limit[query]).nonzero()[:, 0]
        found = self._scored + query[keep].bincount(minlength=len(self._queries))
        self.crowded |= found > self._most
        self._waiting, self._many = [(bound[keep], query[keep], row[keep])], len(keep)

    def score_all(self) -> None:
        """Leave no candidate unscored."""
        self.narrow()
        _, query, row = self._joined()
        self._score(query, row)
        self._waiting, self._many = [_NOTHING], 0

    def _joined(self) -> tuple[Tensor, Tensor, Tensor]:
        bound, query, row = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        return bound, query, row

    def _score(self, query: Tensor, row: Tensor) -> None:
        """Learn from candidates ``[n]`` that were not scored before."""
        if len(query) == 0:
            return
        similarity = self._similarities(query, row)
        top = _highest(similarity, query, len(self._queries), self._k)
        missing = top < 0
        values = torch.cat([self.similarity, similarity[top].masked_fill_(missing, -torch.inf)], dim=1)
        self.similarity, self.index = largest(values, torch.cat([self.index, row[top]], dim=1), self._k)
        self._scored += query.bincount(minlength=len(self._queries))

    def _similarities(self, query: Tensor, row: Tensor) -> Tensor:
        """Float32 similarities ``[n]`` of queries to rows."""
        parts = [torch.empty(0)]
        for which, place in zip(query.split(_TOGETHER), row.split(_TOGETHER), strict=True):
            # Of so small matrices, a sum of products takes a third of the time of torch.bmm.
            products = self._bank.index_select(0, place) * self._queries.index_select(0, which)
            parts.append(products.sum(dim=1) / self.norms[place])
        return torch.cat(parts)


def _highest(value: Tensor, query: Tensor, queries: int, count: int) -> Tensor:
    """Places ``[Q,count]`` of the highest of values ``[n]`` of each query, descending; -1 where it has no more."""
    left = torch.arange(len(value))
    found = value.new_full((queries, count), -1, dtype=torch.int64)
    for rank in range(count):
        most = value.new_full((queries,), -torch.inf).scatter_reduce_(0, query[left], value[left], "amax")
        top = left[value[left] == most[query[left]]]
        one = found[:, rank].scatter_(0, query[top], top)  # whichever of equal ones
        left = left[one[query[left]] != left]
    return found


def largest(values: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` (or all) largest values in each row of ``[Q,n]``, descending, with their indices."""
    top = values.topk(min(k, values.shape[1]), dim=1)
    return top.values, index.gather(1, top.indices)
