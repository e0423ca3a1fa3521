"""What processes that load images log comes to the log of the process that they load them for."""

from __future__ import annotations

import logging
import weakref
from logging.handlers import QueueHandler, QueueListener
from typing import Any

from torch import multiprocessing


class WorkerLogs:
    """``worker_init_fn`` of a data loader, by which records of its workers go to this process's handlers.

    A worker that is forked has those handlers too, but writes into the midst of others' lines; one that is spawned, as
    on macOS and Windows, has none, and what it says of slices that it leaves out would be lost.
    """

    def __init__(self) -> None:
        self.level = logging.getLogger().level
        self.records = multiprocessing.get_context().Queue()
        listener = QueueListener(self.records, _Here())
        listener.start()
        self.close = weakref.finalize(self, listener.stop)
        """Waits for what workers that have ended sent; garbage collection calls it too."""

    def __getstate__(self) -> dict[str, Any]:
        return {"level": self.level, "records": self.records}

    def __call__(self, worker: int) -> None:
        """Set up logging in a worker, before it loads anything."""
        root = logging.getLogger()
        root.handlers = [QueueHandler(self.records)]
        root.setLevel(self.level)


def worker_logs(num_workers: int) -> WorkerLogs | None:
    """:class:`WorkerLogs` where there are workers."""
    return WorkerLogs() if num_workers else None


class _Here(logging.Handler):
    """Hands a record of another process to the logger of its name."""

    def handle(self, record: logging.LogRecord) -> bool:
        named = logging.getLogger(record.name)
        heard = named.isEnabledFor(record.levelno)
        if heard:
            named.handle(record)
        return heard
