"""One file of cached embeddings: a safetensors file, written once and whole, that says which entries it holds.

Safetensors is the file format, and the page cache of the system keeps what is read often. There is no database: not our
own, nor LMDB, whose single writer and file locks suit neither several ranks nor network drives, nor zarr, one more
dependency, which would write a file a chunk as well. Any safetensors tool reads a shard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from dino_uad.files import atomic_path

Record = dict[str, Tensor]
"""Slices of one entry: ``embedding`` [S,C,h,w] half, ``cls`` [S,C], ...; empty if the entry gave no slice."""


def write_shard(path: Path, records: Mapping[str, Record]) -> None:
    """Join records by their keys along the slices; the file appears only whole, and on disk.

    Args:
        path: of the file.
        records: entry keys to records; those that are not empty agree in names, types and shapes but for the slices.
    """
    filled = [record for record in records.values() if record]
    tensors = {name: torch.cat([record[name] for record in filled]) for name in (filled[0] if filled else ())}
    contents = json.dumps([[key, count_slices(record)] for key, record in records.items()])
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, {"contents": contents}))


def count_slices(record: Record) -> int:
    """Number of slices of a record."""
    return len(next(iter(record.values()))) if record else 0


def read_contents(path: Path) -> list[tuple[str, int]]:
    """Entry keys and numbers of slices in the order of the file.

    Raises:
        SafetensorError, KeyError, ValueError: the file is damaged, or no shard.
    """
    with safe_open(path, "pt") as file:
        return [(str(key), int(count)) for key, count in json.loads(file.metadata()["contents"])]


def empty_rows(path: Path, count: int) -> Record:
    """Tensors ``[count,...]`` with the names, types and shapes of a shard's, not filled."""
    with safe_open(path, "pt") as file:
        first = {name: file.get_slice(name)[:1] for name in file.keys()}  # noqa: SIM118
    return {name: row.new_empty((count, *row.shape[1:])) for name, row in first.items()}


def read_rows(path: Path, rows: Sequence[int], into: Record, places: Sequence[int]) -> None:
    """Copy single slices from the mapped file to places of tensors; no more than these are read.

    The mapping ends with the call, so that pages that were looked at do not stay in the resident memory.

    Args:
        path: of the file.
        rows: to copy.
        into: tensors ``[B,...]`` by their names.
        places: first index of each row in them.
    """
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            mapped = file.get_slice(name)
            for row, place in zip(rows, places, strict=True):
                into[name][place] = mapped[row]
