"""Batches read while the device works on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from dino_uad.embeddings.shard import Record

Request = TypeVar("Request")
READERS = 4
"""Threads that read, and batches that are read ahead."""


def pinned_ahead(read: Callable[[Request], Record], requests: Iterable[Request]) -> Iterator[Record]:
    """What ``read`` makes of each request, in their order, in pinned memory, from which it is copied while kernels run.

    Only worth threads where the arithmetic is elsewhere, on a GPU.
    """
    coming = iter(requests)

    def take(request: Request) -> Record:
        return {key: value.pin_memory() for key, value in read(request).items()}

    with ThreadPoolExecutor(READERS) as readers:
        reading = deque(readers.submit(take, request) for request in islice(coming, READERS))
        while reading:
            batch = reading.popleft().result()
            reading.extend(readers.submit(take, request) for request in islice(coming, 1))
            yield batch
