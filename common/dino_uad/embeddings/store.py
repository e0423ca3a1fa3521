"""Embeddings by the key of their entry: on disk in a few mapped files, or in memory."""

from __future__ import annotations

import functools
import logging
import math
import mmap
import os
import re
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import torch

from dino_uad.digests import digest_facts
from dino_uad.embeddings.shard import DAMAGE, Record, count_slices, empty_rows, read_contents, read_rows, write_shard
from dino_uad.files import remove_leftovers, write_json

logger = logging.getLogger(__name__)

SHARD_BYTES = 64 << 20
SHARD_SECONDS = 60.0
WRITERS = 4
"""Shards that are written at once, since a GPU fills them faster than one is written. A killed run loses no more than
these and the one that is being filled, each of so many bytes or seconds; without a GPU these are hardly ever two."""
TOUCH_SECONDS = 3600.0
FACTS = "store.json"
_SHARD = re.compile(r"[0-9a-f]{16}\.safetensors")


class Place(NamedTuple):
    """Where the slices of an entry are: rows ``start`` to ``start + count`` of a shard."""

    shard: str
    start: int
    count: int


class MemoryStore:
    """Records that live as long as the process."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def find(self, keys: Iterable[str]) -> dict[str, Place]:
        """Places of those entries that are here."""
        return {key: Place(key, 0, count_slices(self._records[key])) for key in keys if key in self._records}

    def append(self, key: str, record: Record) -> None:
        """Keep the record of an entry."""
        self._records[key] = record

    def prepare(self) -> None:
        """Memory needs no preparation."""

    def flush(self) -> None:
        """Nothing waits to be written."""

    def read(self, places: Sequence[tuple[str, int]]) -> Record:
        """Copies of single slices, given by shard and row, stacked in that order."""
        rows = [{name: value[row] for name, value in self._records[key].items()} for key, row in places]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class EmbeddingStore:
    """A folder of shards (:mod:`dino_uad.embeddings.shard`) of one backbone and preprocessing.

    Any number of processes may write at once, each its own shards, and read what is there. A shard appears whole or not
    at all, so a kill loses no more than the one being written; two processes that embed the same entry both keep it.
    The time of change of a shard is that of its last use, by which ``python -m dino_uad cache prune`` chooses.

    Args:
        cache_dir: folder of the stores.
        facts: what tells this store from others, in JSON types (:func:`~dino_uad.embeddings.identity.store_facts`).
    """

    def __init__(self, cache_dir: str | Path, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.folder = Path(cache_dir) / f"{facts['backbone']['arch']}-{digest_facts(facts)[:16]}"
        self._pending: dict[str, Record] = {}
        self._bytes = 0
        self._since = 0.0
        self._writers = ThreadPoolExecutor(WRITERS)
        self._writing: deque[Future[None]] = deque()
        self._verified: dict[str, int] = {}  # for each shard one bit a row
        self._touched: dict[str, float] = {}

    def find(self, keys: Iterable[str]) -> dict[str, Place]:
        """Places of those entries that are on disk; damaged shards are removed with a warning."""
        wanted, found = set(keys), {}
        for path in shards(self.folder):
            start, used = 0, False
            for key, count in self._contents(path):
                if key in wanted:
                    found.setdefault(key, Place(path.name, start, count))
                    used = True
                start += count
            if used:
                self._touch(path)
        return found

    def prepare(self) -> None:
        """Make the folder, prove that it can be written and mapped, and remove what killed runs left in it.

        Raises:
            OSError: it cannot.
        """
        write_json(self.facts, self.folder / FACTS)
        try:
            with open(self.folder / FACTS, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
                pass
        except OSError as error:  # some network drives
            raise OSError(
                error.errno,
                f"files in {self.folder} cannot be mapped into memory ({error.strerror}): choose a cache_dir on "
                "another disk, or None to keep embeddings in memory",
            ) from error
        remove_leftovers(self.folder)

    def append(self, key: str, record: Record) -> None:
        """Take the record of an entry; it is on disk after :meth:`flush`, or once a shard is full."""
        if not self._pending:
            self._since = time.monotonic()
        elif _layout(record) != _layout(*self._pending.values()) and record:
            self._write_behind()
        self._pending[key] = record
        self._bytes += sum(value.nbytes for value in record.values())
        if self._bytes >= SHARD_BYTES or time.monotonic() - self._since > SHARD_SECONDS:
            self._write_behind()

    def flush(self) -> None:
        """Write what was appended.

        Raises:
            OSError: the folder cannot be written or the disk is full.
        """
        try:
            self._write_behind()
            self._wait(0)
        finally:
            self._writers.shutdown()
            self._writers = ThreadPoolExecutor(WRITERS)  # starts a thread when there is something to write

    def _write_behind(self) -> None:
        """Start to write a shard, while the next embeddings are made."""
        self._wait(WRITERS - 1)
        if self._pending:
            path = self.folder / f"{uuid4().hex[:16]}.safetensors"
            self._writing.append(self._writers.submit(write_shard, path, self._pending))
            self._pending, self._bytes = {}, 0

    def _wait(self, most: int) -> None:
        """Block until at most ``most`` writes are pending; re-raises the error of a failed write."""
        while len(self._writing) > most or (self._writing and self._writing[0].done()):
            self._writing.popleft().result()

    def read(self, places: Sequence[tuple[str, int]]) -> Record:
        """Copies of single slices, given by shard and row, stacked in that order; each is verified once.

        Raises:
            FileNotFoundError: somebody removed a shard.
            ValueError: a shard is damaged; it is removed, so that the next run makes its embeddings again.
        """
        result: Record = {}
        for shard, (rows, into) in _by_shard(places).items():
            path, verified = self.folder / shard, self._verified.get(shard, 0)
            try:
                result = result or empty_rows(path, len(places))
                read_rows(path, rows, result, into, verify={row for row in rows if not verified >> row & 1})
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"{path} is gone or may not be read any more, though this run began with it: start it again; what "
                    "is missing is embedded again. Do not prune a cache while a run reads it"
                ) from error
            except DAMAGE as error:
                _remove(path)
                raise ValueError(
                    f"{path} is damaged ({error}) and was removed: start the run again; its embeddings are made again. "
                    "If this happens often, check the disk"
                ) from error
            self._touch(path)
            self._verified[shard] = functools.reduce(lambda bits, row: bits | 1 << row, rows, verified)
        return result

    def _touch(self, path: Path) -> None:
        """Say that a shard is in use, once an hour: a fit may last longer than what prune takes for unused."""
        now = time.monotonic()
        if now - self._touched.get(path.name, -math.inf) > TOUCH_SECONDS:
            self._touched[path.name] = now
            with suppress(OSError):  # a cache that may only be read
                os.utime(path)

    @staticmethod
    def _contents(path: Path) -> list[tuple[str, int]]:
        try:
            return read_contents(path)
        except FileNotFoundError:
            if path.exists():  # safetensors says the same of a file that may not be read
                logger.warning(f"cache file {path} may not be read; its embeddings are made again")
            return []  # or pruned meanwhile
        except DAMAGE as error:
            logger.warning(f"cache file {path.name} is damaged ({error}); its embeddings are made again")
            _remove(path)
            return []


def _remove(path: Path) -> None:
    with suppress(OSError):  # a cache that may only be read
        path.unlink()


def shards(folder: Path) -> list[Path]:
    """The files of embeddings in a folder, by the names that we give; files being written and those of others do not
    count."""
    return sorted(path for path in folder.glob("*.safetensors") if _SHARD.fullmatch(path.name))


def _layout(*records: Record) -> dict[str, Any] | None:
    """Names, types and shapes of the first record that has slices."""
    filled = next(filter(None, records), None)
    return filled and {name: (value.dtype, value.shape[1:]) for name, value in filled.items()}


def _by_shard(places: Sequence[tuple[str, int]]) -> dict[str, tuple[list[int], list[int]]]:
    """For each shard the rows that are wanted of it, and their places in the result."""
    wanted: dict[str, tuple[list[int], list[int]]] = {}
    for place, (shard, row) in enumerate(places):
        rows, into = wanted.setdefault(shard, ([], []))
        rows.append(row)
        into.append(place)
    return wanted
