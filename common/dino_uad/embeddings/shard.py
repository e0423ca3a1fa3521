"""One file of cached embeddings: a safetensors file, written once and whole, that says which entries it holds.

Safetensors is the file format, and the page cache of the system keeps what is read often. There is no database: not our
own, nor LMDB, whose single writer and file locks suit neither several ranks nor network drives, nor zarr, one more
dependency, which would write a file a chunk as well. Any safetensors tool reads a shard.

Safetensors notices a file that was cut. Bytes that changed, on a failing disk or where a file system lost a page,
it does not: the contents and each row have a CRC-32 of their own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dino_uad.files import atomic_path

CHECKSUMS = "crc32"
"""Name of the tensor with those of the rows."""
DAMAGE = (SafetensorError, KeyError, IndexError, TypeError, ValueError)
"""What reading a damaged file raises; not errors of the system, after which a file may be as it should."""
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
    if tensors:
        count = sum(map(count_slices, filled))
        tensors[CHECKSUMS] = torch.tensor([_checksum(tensors, row) for row in range(count)])
    contents = json.dumps([[key, count_slices(record)] for key, record in records.items()])
    with atomic_path(path) as temporary:
        # Not save_file, which puts a file of its own, without our lock and for its owner alone, in this one's place.
        temporary.write_bytes(save(tensors, {"contents": contents, "crc32": _crc32_of(contents)}))


def count_slices(record: Record) -> int:
    """Number of slices of a record."""
    return len(next(iter(record.values()))) if record else 0


def read_contents(path: Path) -> list[tuple[str, int]]:
    """Entry keys and numbers of slices in the order of the file.

    Raises:
        DAMAGE: the file is damaged, or no shard.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if metadata["crc32"] != _crc32_of(metadata["contents"]):
        raise ValueError("its contents and their checksum disagree")
    return [(str(key), int(count)) for key, count in json.loads(metadata["contents"])]


def empty_rows(path: Path, count: int) -> Record:
    """Tensors ``[count,...]`` with the names, types and shapes of a shard's, not filled."""
    with safe_open(path, "pt") as file:
        first = {name: file.get_slice(name)[:1] for name in _names(file)}
    return {name: row.new_empty((count, *row.shape[1:])) for name, row in first.items()}


def read_rows(path: Path, rows: Sequence[int], into: Record, places: Sequence[int], verify: Container[int]) -> None:
    """Copy single slices from the mapped file to places of tensors; no more than these are read.

    The mapping ends with the call, so that pages that were looked at do not stay in the resident memory.

    Args:
        path: of the file.
        rows: to copy.
        into: tensors ``[B,...]`` by their names.
        places: first index of each row in them.
        verify: those of the rows whose checksums are compared.

    Raises:
        DAMAGE: the file is damaged.
    """
    with safe_open(path, "pt") as file:
        for name in _names(file):
            mapped = file.get_slice(name)
            for row, place in zip(rows, places, strict=True):
                into[name][place] = mapped[row]
        expected = file.get_slice(CHECKSUMS)
        for row, place in zip(rows, places, strict=True):
            if row in verify and _checksum(into, place) != int(expected[row]):
                raise ValueError(f"row {row} and its checksum disagree")


def _names(file: safe_open) -> list[str]:
    return [name for name in file.keys() if name != CHECKSUMS]  # noqa: SIM118


def _checksum(tensors: Record, row: int) -> int:
    """Of one slice: names, types, shapes and bytes."""
    result = 0
    for name in sorted(tensors):
        value = tensors[name][row].contiguous()
        result = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), result)
        result = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy(), result)
    return result


def _crc32_of(contents: str) -> str:
    return f"{zlib.crc32(contents.encode()):08x}"
