"""Exact search in two passes: bounds of the similarity to all groups of rows, then the groups that are not excluded.

From time to time the most promising groups of each query are scored in float32. What is found there a bound must
reach: groups with lower ones cannot hold a neighbour and are forgotten, as are those that were kept before.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dino_uad.heads.anomaly_dino import first_pass
from dino_uad.heads.anomaly_dino.first_pass import FirstPass

_MOST = 1024  # candidate groups of one query, above which it is crowded; bounds the memory
_ROWS_A_GROUP = 128  # about so many rows are scanned in the time in which one group is scored
_TOGETHER = 256  # groups scored together: in the processor's cache
_ROUNDING = 1e-6  # of scored similarities


def search(queries: Tensor, bank: Tensor, k: int, first: type[FirstPass]) -> tuple[Tensor, Tensor, Tensor]:
    """The ``k`` largest similarities of unit queries ``[Q,C]`` to rows of a bank ``[M,C]``.

    Returns:
        similarities and the rows' indices, ``[Q,k]``, descending; and, ``[Q]``, which queries are crowded: so many
        groups can hold a neighbour that a scan of the bank is the shorter way. Theirs are not to be used.
    """
    coarse = first(queries)
    candidates = _Candidates(queries, bank, k)
    for number, start in enumerate(range(0, len(bank), coarse.slab)):
        part = slice(start, start + coarse.slab)
        rows, candidates.norms[part] = first_pass.unit(bank[part])
        candidates.add(coarse.bounds(rows), start)
        if number & (number + 1) == 0:  # after 1, 2, 4, 8, ... slabs
            candidates.narrow()
    candidates.narrow()
    return *candidates.nearest(), candidates.crowded


class _Candidates:
    """Groups that can hold one of the ``k`` nearest rows of a query.

    Attributes:
        norms: ``[M]`` of the bank's rows, to be filled in before their groups are added.
        crowded: ``[Q]`` bool, the queries for which too many groups were found; they have none any more.
    """

    def __init__(self, queries: Tensor, bank: Tensor, k: int) -> None:
        self._queries, self._bank, self._k = queries, bank, k
        self._most = min(_MOST, max(len(bank) // _ROWS_A_GROUP, 1))
        self.norms = torch.empty(len(bank))
        self.crowded = torch.zeros(len(queries), dtype=torch.bool)
        self._count = torch.zeros(len(queries), dtype=torch.int64)
        self._best = torch.full((len(queries), k), -torch.inf)  # similarities found by scoring, descending
        # Bounds, queries and first rows of groups: before and after those that were last scored.
        self._old: list[tuple[Tensor, Tensor, Tensor]] = []
        self._new: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def _limit(self) -> Tensor:
        """``[Q]`` that a bound must reach."""
        return (self._best[:, -1] - _ROUNDING).masked_fill_(self.crowded, torch.inf)

    def add(self, bounds: Tensor, start: int) -> None:
        """Keep the groups that can hold a neighbour, of those with ``bounds`` ``[n,Q]`` from row ``start`` on."""
        if start == 0:
            group = bounds.topk(min(self._k, len(bounds)), dim=0).indices
            self._score(torch.arange(len(self._queries)).repeat(len(group)), group.flatten() * first_pass.GROUP)
        group, query = (bounds >= self._limit).nonzero(as_tuple=True)
        found = bounds[group, query], query, group * first_pass.GROUP + start
        (self._new if start else self._old).append(found)
        self._count += query.bincount(minlength=len(self._queries))
        self.crowded |= self._count > self._most

    def narrow(self) -> None:
        """Score the new groups of each query that have the highest bounds, and keep what can still hold a neighbour."""
        if self._new:
            value, query, first_row = _joined(self._new)
            highest = _highest(value, query, len(self._queries), self._k)
            self._score(query[highest], first_row[highest])
        value, query, first_row = _joined(self._old + self._new)
        keep = (value >= self._limit[query]).nonzero()[:, 0]
        self._old, self._new = [(value[keep], query[keep], first_row[keep])], []
        self._count = query[keep].bincount(minlength=len(self._queries))

    def nearest(self) -> tuple[Tensor, Tensor]:
        """The ``k`` largest similarities among all groups, and their rows, ``[Q,k]``."""
        _, query, first_row = _joined(self._old + self._new)
        return self._best_of(query, first_row)

    def _score(self, query: Tensor, first_row: Tensor) -> None:
        """Learn from groups ``[n]`` that were not scored before."""
        best = self._best_of(query, first_row)[0]
        self._best = torch.cat([self._best, best], dim=1).topk(self._k, dim=1).values

    def _best_of(self, query: Tensor, first_row: Tensor) -> tuple[Tensor, Tensor]:
        """The ``k`` largest similarities and their rows, ``[Q,k]``, of groups ``[n]`` of queries."""
        query, order = query.sort(stable=True)
        similarity, rows = self._similarities(query, first_row[order])
        count = query.bincount(minlength=len(self._queries))
        slot = torch.arange(len(query)) - (count.cumsum(0) - count)[query]
        table = similarity.new_full((len(self._queries), max(int(count.max()), self._k), first_pass.GROUP), -torch.inf)
        numbers = rows.new_zeros(table.shape)
        table[query, slot], numbers[query, slot] = similarity, rows
        return largest(table.flatten(1), numbers.flatten(1), self._k)

    def _similarities(self, query: Tensor, first_row: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 similarities ``[n,GROUP]`` of each query to the rows of its group, and the rows' indices."""
        rows = first_row[:, None] + torch.arange(first_pass.GROUP)
        similarity = torch.empty(rows.shape)
        for part in torch.arange(len(rows)).split(_TOGETHER):
            inside = rows[part].clamp_max(len(self._bank) - 1)
            vectors = self._bank.index_select(0, inside.flatten()).view(*inside.shape, self._bank.shape[1])
            # Of so small matrices, a sum of products takes a third of the time of torch.bmm.
            similarity[part] = (vectors * self._queries[query[part], None]).sum(dim=2) / self.norms[inside]
        return similarity.masked_fill_(rows >= len(self._bank), -torch.inf), rows


def _joined(found: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    value, query, first_row = (torch.cat(parts) for parts in zip(*found, strict=True))
    return value, query, first_row


def _highest(value: Tensor, query: Tensor, queries: int, count: int) -> Tensor:
    """Which of values ``[n]`` are the highest ``count`` of their query, or all that it has."""
    left = torch.arange(len(value))
    found = []
    for _ in range(count):
        most = value.new_zeros(queries).scatter_reduce_(0, query[left], value[left], "amax", include_self=False)
        top = left[value[left] == most[query[left]]]
        one = torch.full((queries,), -1).scatter_(0, query[top], top)  # whichever of equal ones
        found.append(one[one >= 0])
        left = left[one[query[left]] != left]
    return torch.cat(found)


def largest(values: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` (or all) largest values in each row of ``[Q,n]``, descending, with their indices."""
    top = values.topk(min(k, values.shape[1]), dim=1)
    return top.values, index.gather(1, top.indices)
