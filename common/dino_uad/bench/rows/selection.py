"""Greedy k-centre coreset against the plain loop, which passes through the whole bank for every row it selects."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import patch_embeddings
from dino_uad.bench.timing import interleave
from dino_uad.heads.anomaly_dino import encode_rows, greedy_coreset, nearest_neighbours, unit_rows

DIM = 384


def coreset(settings: Settings) -> Row:
    """A tenth of a bank that the plain loop finishes, and the start of the selection from a large one."""
    small, large, start = settings.size((20_000, 100_000, 300), (2_000, 4_000, 50))
    size = {"bank": small, "selected": small // 10, "large bank": large, "selected from it": large // 10, "C": DIM}
    row = Row("coreset", "Greedy coreset of 10 %", size, settings)
    bank = _bank(large).to(settings.device)
    section = bank[:: large // small]
    row.time(
        {"ours": lambda: greedy_coreset(section, small // 10), "plain loop": lambda: plain_greedy(section, small // 10)}
    )
    row.ratio("plain loop / ours", "plain loop", "ours", at_least=5)
    row.time(
        {
            f"ours, {start} of large": lambda: greedy_coreset(bank, start),
            f"plain loop, {start} of large": lambda: plain_greedy(bank, start),
        }
    )
    row.ratio(
        f"first {start} selections from {large} rows, plain loop / ours",
        f"plain loop, {start} of large",
        f"ours, {start} of large",
    )
    _whole(row, bank, start)
    radii = [covering_radius(section, select(section, small // 10)) for select in (greedy_coreset, plain_greedy)]
    row.check("covering radius / the plain loop's, minus 1", radii[0] / radii[1] - 1, 0.02)
    same = greedy_coreset(bank, start).eq(plain_greedy(bank, start)).float().mean()
    row.figure(f"same rows among the first {start} of {large}", 100 * float(same), "%")
    return row


def _whole(row: Row, bank: Tensor, start: int) -> None:
    """All of the large coreset by ours, once, beside what the plain loop's constant cost per row comes to."""
    count = len(bank) // 10
    once = replace(row.settings, repeats=1)
    row.timings.update(interleave({"ours, all of large": lambda: greedy_coreset(bank, count)}, once))
    ours = row.timings["ours, all of large"].wall_median
    plain = row.timings[f"plain loop, {start} of large"].wall_median * count / start
    row.notes.append(
        f"All {count} of {len(bank)} rows: ours took {ours:.1f} s (one run). The plain loop does the same work for "
        f"every row, {plain:.0f} s at its measured pace."
    )


def plain_greedy(bank: Tensor, n_select: int) -> Tensor:
    """PatchCore's Algorithm 1 as written, on cosine distances; starts where :func:`greedy_coreset` does."""
    rows = unit_rows(bank)
    selected = torch.randint(len(rows), (1,), generator=torch.Generator().manual_seed(0)).to(bank.device)
    distance = torch.full((len(rows),), torch.inf, device=bank.device)
    chosen = []
    for _ in range(n_select):
        chosen.append(selected)
        distance = torch.minimum(distance, 1 - rows @ rows[selected[0]])
        distance[selected] = -1
        selected = distance.argmax(keepdim=True)
    return torch.cat(chosen)


def covering_radius(bank: Tensor, chosen: Tensor) -> float:
    """Largest cosine distance of a row to its nearest chosen one."""
    return float(nearest_neighbours(unit_rows(bank), unit_rows(bank[chosen]))[0].max())


def _bank(n_rows: int) -> Tensor:
    embeddings = patch_embeddings(-(-n_rows // 1024), 32, DIM)
    return encode_rows(embeddings.movedim(1, -1).reshape(-1, DIM)[:n_rows])
