"""The rows by name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dino_uad.bench.row import Row
from dino_uad.bench.rows import (
    approximate,
    feeding,
    large_fit,
    memory,
    mixture,
    neighbours,
    pixels,
    ranks,
    scoring,
    selection,
    start,
    throughput,
    training,
    transformer,
    volume,
    whole_fit,
)
from dino_uad.bench.settings import Settings

ROWS: dict[str, Callable[[Settings], Row]] = {
    "start": start.command_line,
    "em": mixture.em_step,
    "sklearn": mixture.scikit_learn,
    "score": scoring.cosine_heads,
    "ar": scoring.autoregressive,
    "stage": scoring.stage,
    "ar_training": training.autoregressive_training,
    "forward": transformer.forward,
    "fit": whole_fit.whole_fit,
    "pixels": pixels.pixel_curves,
    "volume": volume.volume,
    "coreset": selection.coreset,
    "nearest": neighbours.nearest,
    "em_ranks": ranks.mixture_ranks,
    "nearest_ranks": ranks.nearest_ranks,
    "fit_all": whole_fit.whole_fit_unabridged,
    "options": transformer.options,
    "throughput": throughput.throughput,
    "memory": memory.memory,
    "index": approximate.approximate,
    "index_large": approximate.approximate_large,
    "large_fit": large_fit.large_fit,
    "feeding": feeding.feeding,
}
DISTRIBUTED = ("em_ranks", "nearest_ranks")
"""Rows that have something to measure under ``torchrun``."""
ON_REQUEST = ("fit_all", "options", "throughput", "memory", "index", "index_large", "large_fit", "feeding")
"""Rows that run only when they are named, because they take minutes."""
PEERS = {"sklearn": "sklearn", "index": "faiss", "index_large": "faiss"}
"""Packages without which a row has nothing to compare with."""


def select_rows(names: str | Sequence[str] | None, distributed: bool) -> list[str]:
    """Names of the rows to run; the default leaves out those on request and, under ``torchrun``, all single ones.

    Args:
        names: row names, a sequence or separated by commas; None for the default.
        distributed: whether several ranks run.
    """
    if names is None:
        return [name for name in ROWS if (name in DISTRIBUTED if distributed else name not in ON_REQUEST)]
    wanted = names.split(",") if isinstance(names, str) else list(names)
    unknown = [name for name in wanted if name not in ROWS]
    if unknown:
        raise ValueError(f"unknown rows {', '.join(unknown)}; known: {', '.join(ROWS)}")
    alone = [name for name in wanted if distributed and name not in DISTRIBUTED]
    if alone:
        raise ValueError(f"{', '.join(alone)} run on one process; under torchrun there are {', '.join(DISTRIBUTED)}")
    return wanted
