"""The work that processes share: an EM step on shares of a batch, and a memory bank of which each holds a part.

Run alone, a row times one process, starts the same benchmark under ``torchrun`` with two, and compares both. Run under
``torchrun``, it times the ranks it finds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dino_uad import parallel
from dino_uad.bench.row import Figure, Row
from dino_uad.bench.rows.mixture import start_of_fit
from dino_uad.bench.rows.neighbours import DIM, POSITIONS, SIDE
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import EmbeddingRows
from dino_uad.bench.timing import Timing
from dino_uad.heads.anomaly_dino import encode_rows, nearest_neighbours_sharded
from dino_uad.measure import MEGABYTE

RANKS = 2
RESULT = "BENCH_RESULT"  # environment variable: where the ranks leave what they computed


def mixture_ranks(settings: Settings) -> Row:
    """EM step of a global batch, divided over the ranks."""
    row = Row("em_ranks", "DPMM EM step on several processes", {}, settings, parallel.world_size())
    batch, head, start = start_of_fit(settings)
    row.size = {"N": batch[:, 0].numel(), "K": len(head.log_weights), "D": batch.shape[1]}
    share = batch.tensor_split(parallel.world_size())[parallel.rank()]

    def step() -> Tensor:
        head.load_state_dict(start)
        head.fit_batch(share)
        return head.running_means

    return _measure(row, step, "means, embeddings of length 1", 1e-5)


def nearest_ranks(settings: Settings) -> Row:
    """Nearest neighbours of 1024 queries in a bank of which every rank holds a part."""
    images, n_queries = settings.size((320, 1024), (40, 64))
    row = Row("nearest_ranks", "Exact nearest neighbour in a sharded bank", {}, settings, parallel.world_size())
    row.size = {"queries": n_queries, "bank": images * POSITIONS, "C": DIM}
    stream = EmbeddingRows(SIDE, DIM)
    queries = stream.draw(-(-n_queries // POSITIONS))[:n_queries].to(settings.device)
    bank = torch.cat([encode_rows(stream.draw(20)) for _ in range(images // 20)])
    shard = bank[parallel.rank() :: parallel.world_size()].to(settings.device)
    mine = queries.tensor_split(parallel.world_size())[parallel.rank()]
    row.figure("bank on each rank", shard.nbytes / MEGABYTE, "MB")

    def search() -> Tensor:
        return parallel.gather_rows(nearest_neighbours_sharded(mine, shard))

    return _measure(row, search, "distance", 1e-5)


def _measure(row: Row, call: Callable[[], Tensor], checked: str, bound: float) -> Row:
    """Time ``call`` here; in a single process also under torchrun, between two timings of the single process."""
    here = _label(row.ranks, row.settings.threads)
    row.time({here: call})
    if row.ranks > 1:
        _leave(call())
        return row
    if row.settings.device.type == "cuda" and torch.cuda.device_count() < RANKS:
        row.notes.append(f"{RANKS} processes need {RANKS} GPUs; this machine has {torch.cuda.device_count()}.")
        return row
    before = row.timings[here]
    row.ranks = RANKS
    timing, figures, result = _under_torchrun(row)
    there = _label(RANKS, _threads_of_rank(row))
    row.time({here: call})
    after = row.timings[here]
    row.timings = {here: Timing(before.wall + after.wall, before.cpu + after.cpu, after.calls), there: timing}
    row.figures = figures
    wall = timing.wall_median / row.timings[here].wall_median
    row.figure(f"{there} / {here}", wall, "×")
    row.check(f"{checked}, two processes against one", (result - call().cpu()).abs().max(), bound)
    return row


def _label(processes: int, threads: int) -> str:
    return f"{processes} process{'es' * (processes > 1)}, {threads} thread{'s' * (threads > 1)} each"


def _threads_of_rank(row: Row) -> int:
    return max(1, row.settings.threads // RANKS)


def _under_torchrun(row: Row) -> tuple[Timing, list, Tensor]:
    settings = row.settings
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.pt")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={RANKS}"]
        command += ["-m", "dino_uad", "bench", f"--rows={row.name}", f"--out={folder}", f"--repeats={settings.repeats}"]
        command += [
            f"--threads={_threads_of_rank(row)}",
            f"--device={settings.device.type}",
            f"--quick={settings.quick}",
        ]
        done = subprocess.run(command, env={**os.environ, RESULT: str(result)}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
        report = json.loads(Path(folder, "bench.json").read_text(encoding="utf-8"))["rows"][row.name]
        timing = next(iter(report["timings"].values()))
        figures = [Figure(f["name"], f["value"], f["unit"]) for f in report["figures"]]
        return Timing(timing["wall"], timing["cpu"], timing["calls"]), figures, torch.load(result, weights_only=True)


def _leave(result: Tensor) -> None:
    """Give the process that started the ranks something to compare."""
    if parallel.rank() == 0 and RESULT in os.environ:
        torch.save(result.cpu(), os.environ[RESULT])
