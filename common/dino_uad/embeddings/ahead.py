"""Batches read while the device works on the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from dino_uad.embeddings.shard import Record

_END = object()


def pinned_ahead(batches: Iterable[Record]) -> Iterator[Record]:
    """Read one batch ahead in a thread, into pinned memory, from which it is copied while kernels run.

    Only worth a thread where the arithmetic is elsewhere, on a GPU.
    """
    stream = iter(batches)

    def take() -> object:
        batch = next(stream, _END)
        return batch if batch is _END else {key: value.pin_memory() for key, value in batch.items()}

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(take)
        while (batch := coming.result()) is not _END:
            coming = reader.submit(take)
            yield batch
