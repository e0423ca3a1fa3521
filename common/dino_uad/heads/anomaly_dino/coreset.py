"""Greedy k-centre selection: PatchCore's way to bound a memory bank (Roth et al., CVPR 2022, Algorithm 1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dino_uad.heads.anomaly_dino.nearest import unit_rows

_CANDIDATES = 512
_ROWS = 16384  # bank rows decoded to float32 at once


def greedy_coreset(bank: Tensor, n_select: int, seed: int = 0, progress: bool = False) -> Tensor:
    """Select rows so that the farthest row from its nearest selected one, by cosine distance, is as close as possible.

    Every step takes the row farthest from those selected, exactly as the plain loop does, but most steps need not look
    at the bank: distances only shrink, so the farthest of the ``_CANDIDATES`` currently farthest rows is the farthest
    of all as long as it is no closer than the others were. Only when it is closer, the rows selected meanwhile meet the
    whole bank, in one matrix product instead of one pass through memory each.

    Args:
        bank: ``[M,C]`` rows of any dtype, as :func:`~dino_uad.heads.anomaly_dino.nearest.encode_rows` gives; only their
            direction counts.
        n_select: number of rows to keep, 1 to ``M``.
        seed: draws the first row.
        progress: show a progress bar.

    Returns:
        ``[n_select]`` distinct indices in the order of selection.
    """
    if not 1 <= n_select <= len(bank):
        raise ValueError(f"cannot select {n_select} of {len(bank)} rows")
    first = torch.randint(len(bank), (1,), generator=torch.Generator().manual_seed(seed)).to(bank.device)
    chosen = [first]
    # Largest similarity to a selected row; selected rows themselves get 2, more than any similarity.
    nearest = torch.full((len(bank),), -torch.inf, device=bank.device)
    _update(nearest, bank, first)
    with tqdm(total=n_select, initial=1, desc="coreset", unit="row", disable=not progress) as bar:
        while (missing := n_select - sum(map(len, chosen))) > 0:
            chosen.append(_select_farthest(nearest, bank, missing))
            _update(nearest, bank, chosen[-1])
            bar.update(len(chosen[-1]))
    return torch.cat(chosen)


def _update(nearest: Tensor, bank: Tensor, selected: Tensor) -> None:
    """Account in ``nearest`` ``[M]`` for newly selected rows."""
    centres = unit_rows(bank[selected]).T
    for start in range(0, len(bank), _ROWS):
        similarity = (unit_rows(bank[start : start + _ROWS]) @ centres).amax(dim=1)
        torch.maximum(nearest[start : start + _ROWS], similarity, out=nearest[start : start + _ROWS])
    nearest[selected] = 2


def _select_farthest(nearest: Tensor, bank: Tensor, limit: int) -> Tensor:
    """As many greedy steps as the currently farthest rows decide among themselves: their indices, at least one."""
    count = min(_CANDIDATES, len(nearest))
    farthest = nearest.topk(min(count + 1, len(nearest)), largest=False)
    others = farthest.values[count].item() if len(farthest.values) > count else np.inf
    candidates = farthest.indices[:count]
    rows = unit_rows(bank[candidates])
    mutual = (rows @ rows.T).cpu().numpy()
    similarity = farthest.values[:count].cpu().numpy().copy()
    steps: list[int] = []
    while len(steps) < limit:
        step = int(similarity.argmin())
        if similarity[step] > others or (steps and similarity[step] >= 2):
            break
        steps.append(step)
        np.maximum(similarity, mutual[step], out=similarity)
        similarity[step] = 2
    return candidates[torch.tensor(steps, device=bank.device)]
