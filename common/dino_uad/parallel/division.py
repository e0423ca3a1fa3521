"""Work divided over the processes: what each does, and how their results are joined."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

from dino_uad.parallel.collectives import gather_objects
from dino_uad.parallel.group import rank, world_size

T = TypeVar("T")
_NOTHING = object()


def share(items: Iterable[T]) -> list[T]:
    """This rank's items: every ``world_size``-th, from the ``rank``-th on."""
    return list(itertools.islice(items, rank(), None, world_size()))


def join_shares(mine: Sequence[T]) -> list[T]:
    """What all ranks made of their :func:`share`, one result an item, in the order of the items; on every rank."""
    shares = gather_objects(list(mine))
    return [item for row in itertools.zip_longest(*shares, fillvalue=_NOTHING) for item in row if item is not _NOTHING]


def section(items: Sequence[T], work: Sequence[int] | None = None) -> list[T]:
    """This process's section of ``items``: those of all processes, one after another, are the items in their order.

    Args:
        items: the same in all processes.
        work: how much there is to do with each, above 0; the same when None. No process has more than its part of it
            and the largest item; one may have none.
    """
    work = [1] * len(items) if work is None else work
    total, before, mine = sum(work), 0, []
    for item, amount in zip(items, work, strict=True):
        if (2 * before + amount) * world_size() // (2 * total) == rank():  # where its middle lies
            mine.append(item)
        before += amount
    return mine


def own_place(counts: Sequence[int]) -> slice:
    """Slice of this rank's part in rows that were gathered from all ranks, in rank order, ``counts`` of each."""
    start = sum(counts[: rank()])
    return slice(start, start + counts[rank()])
