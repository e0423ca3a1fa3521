"""Greedy k-centre selection: PatchCore's way to bound a memory bank (Roth et al., CVPR 2022, Algorithm 1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dino_uad.heads.anomaly_dino.nearest import unit_rows
from dino_uad.parallel import all_reduce_sum, broadcast, gather_rows, section
from dino_uad.products import linear

_CANDIDATES = 512
_ROWS = 16384  # bank rows decoded to float32 at once


class _Farthest(NamedTuple):
    """The candidates of one round, the farthest first, equal ones by their numbers; the same on every rank."""

    numbers: Tensor
    """``[n]`` of the rows in the whole bank."""
    similarity: Tensor
    """``[n]`` largest similarity to a selected row."""
    rows: Tensor
    """``[n,C]`` the rows themselves."""
    others: float
    """The smallest such similarity of all other rows."""


def greedy_coreset(
    bank: Tensor, n_select: int, seed: int = 0, progress: bool = False, numbers: Tensor | None = None
) -> Tensor:
    """Select rows so that the farthest row from its nearest selected one, by cosine distance, is as close as possible.

    Every step takes the row farthest from those selected, exactly as the plain loop does, but most steps need not look
    at the bank: distances only shrink, so the farthest of the ``_CANDIDATES`` currently farthest rows is the farthest
    of all as long as it is no closer than the others were. Only when it is closer, the rows selected meanwhile meet the
    whole bank, in one matrix product instead of one pass through memory each.

    Under ``torch.distributed`` every rank must call it, keeps the distances of a part of the rows, and gets the same
    result, that of one process but for the order of rows that are as far as each other, which is a matter of rounding
    where blocks of rows differ. The candidates of each round travel, the bank does not.

    Args:
        bank: ``[M,C]`` rows of any dtype, as :func:`~dino_uad.heads.anomaly_dino.nearest.encode_rows` gives; only their
            direction counts.
        n_select: number of rows to keep, 1 to that of all.
        seed: draws the first row.
        progress: show a progress bar.
        numbers: ``[M]`` ascending numbers of these rows in the whole bank, of which every rank holds a part; None where
            each has all of it.

    Returns:
        ``[n_select]`` distinct numbers of rows of the whole bank in the order of selection.
    """
    if numbers is None:
        numbers = _section(len(bank)).to(bank.device)
        bank = bank[numbers[0] : numbers[-1] + 1] if len(numbers) else bank[:0]
    (count,) = all_reduce_sum(torch.tensor(len(bank), device=bank.device))
    count = int(count)
    if not 1 <= n_select <= count:
        raise ValueError(f"cannot select {n_select} of {count} rows")
    first = torch.randint(count, (1,), generator=torch.Generator().manual_seed(seed)).to(bank.device)
    chosen = [first]
    # Largest similarity to a selected row; selected rows themselves get 2, more than any similarity.
    nearest = torch.full((len(bank),), -torch.inf, device=bank.device)
    _update(nearest, bank, numbers, first, gather_rows(bank[numbers == first]))
    with tqdm(total=n_select, initial=1, desc="coreset", unit="row", disable=not progress) as bar:
        while (missing := n_select - sum(map(len, chosen))) > 0:
            farthest = _find_farthest(nearest, bank, numbers)
            steps = _select(farthest, missing)
            chosen.append(farthest.numbers[steps])
            _update(nearest, bank, numbers, chosen[-1], farthest.rows[steps])
            bar.update(len(steps))
    return torch.cat(chosen)


def _section(count: int) -> Tensor:
    """Numbers of this rank's rows of a bank that all have: whole blocks, whose products are those of one process."""
    numbers = torch.arange(count)
    return torch.cat([numbers[:0], *section(numbers.split(_ROWS))])


def _update(nearest: Tensor, bank: Tensor, numbers: Tensor, selected: Tensor, rows: Tensor) -> None:
    """Account in ``nearest`` ``[M]`` for newly selected rows ``[n,C]`` and their numbers ``[n]``."""
    centres = unit_rows(rows)
    for start in range(0, len(bank), _ROWS):
        similarity = linear(unit_rows(bank[start : start + _ROWS]), centres).amax(dim=1)
        torch.maximum(nearest[start : start + _ROWS], similarity, out=nearest[start : start + _ROWS])
    nearest[torch.isin(numbers, selected)] = 2


def _find_farthest(nearest: Tensor, bank: Tensor, numbers: Tensor) -> _Farthest:
    """The ``_CANDIDATES`` farthest rows of all ranks, and one more for its similarity."""
    count = min(_CANDIDATES + 1, len(nearest))
    if count < len(nearest):  # which of several equal ones topk takes is not defined: the first ones
        limit = nearest.topk(count, largest=False).values[-1]
        below = (nearest < limit).nonzero()[:, 0]
        mine = torch.cat([below, (nearest == limit).nonzero()[: count - len(below), 0]])
    else:
        mine = torch.arange(count, device=bank.device)
    similarity, found = gather_rows(nearest[mine]), gather_rows(numbers[mine])
    rows = gather_rows(bank[mine])
    order = found.argsort()
    order = order[similarity[order].argsort(stable=True)]
    kept = order[:_CANDIDATES]
    others = similarity[order[_CANDIDATES]].item() if len(order) > _CANDIDATES else np.inf
    return _Farthest(found[kept], similarity[kept], rows[kept], others)


def _select(farthest: _Farthest, limit: int) -> Tensor:
    """Greedy steps that the candidates decide among themselves: their indices ``[n]``, 1 to ``limit`` of them."""
    rows = unit_rows(farthest.rows)
    mutual = linear(rows, rows).cpu().numpy()
    similarity = farthest.similarity.cpu().numpy().copy()
    steps: list[int] = []
    while len(steps) < limit:
        step = int(similarity.argmin())
        if similarity[step] > farthest.others or (steps and similarity[step] >= 2):
            break
        steps.append(step)
        np.maximum(similarity, mutual[step], out=similarity)
        similarity[step] = 2
    padded = torch.full((_CANDIDATES,), -1, dtype=torch.int64, device=rows.device)
    padded[: len(steps)] = torch.tensor(steps, device=rows.device)
    broadcast(padded)
    return padded[padded >= 0]
