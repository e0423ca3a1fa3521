"""What waits for files, done for the next items by threads while the results of earlier ones are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
READERS = 4
"""Threads, and items that are under way."""


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of ``function`` in the order of ``items``, of which a few are under way.

    An error is raised where its result would have been. Python runs one thread at a time: this is for a ``function``
    that waits, or that computes in another language.
    """
    coming = iter(items)
    with ThreadPoolExecutor(READERS) as readers:
        started = deque(readers.submit(function, item) for item in islice(coming, READERS))
        while started:
            result = started.popleft().result()
            started.extend(readers.submit(function, item) for item in islice(coming, 1))
            yield result
