"""Slices as they are loaded, by processes of their own where there is a GPU to feed."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader

from dino_uad.embeddings.slices import Loaded, Slices, join_slices
from dino_uad.worker_logs import worker_logs


def load_slices(slices: Slices, num_workers: int, batch_size: int = 1, pin_memory: bool = False) -> Iterator[Loaded]:
    """The slices of all entries in their order, those of ``batch_size`` entries at a time.

    Args:
        slices: of the entries.
        num_workers: processes that load them; 0 is this one.
        batch_size: entries that travel together.
        pin_memory: whether a thread brings them to memory that a GPU reads while it computes.
    """
    num_workers = min(num_workers, len(slices))
    logs = worker_logs(num_workers)
    try:
        yield from DataLoader(
            slices,
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=join_slices,
            pin_memory=pin_memory,
            worker_init_fn=logs,
        )
    finally:
        if logs is not None:
            logs.close()
