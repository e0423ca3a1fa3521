"""One file of cached embeddings: a safetensors file, written once and whole, that says which entries it holds.

Safetensors is the file format, and the page cache of the system keeps what is read often. There is no database: not our
own, nor LMDB, whose single writer and file locks suit neither several ranks nor network drives, nor zarr, one more
dependency, which would write a file a chunk as well. Any safetensors tool reads a shard.

Safetensors notices a file that was cut. Bytes that changed, on a failing disk or where a file system lost a page,
it does not: the contents and each row have a CRC-32 of their own.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dino_uad.files import atomic_path

CHECKSUMS = "crc32"
"""Name of the tensor with those of the rows."""
TYPES = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}
"""Names in the file format of the types that records and their checksums have."""
DAMAGE = (SafetensorError, KeyError, IndexError, TypeError, ValueError)
"""Errors that reading a damaged file raises; after an OSError the file may be intact."""
Record = dict[str, Tensor]
"""Slices of one entry: ``embedding`` [S,C,h,w] half, ``cls`` [S,C], ...; empty if the entry gave no slice."""


def write_shard(path: Path, records: Mapping[str, Record]) -> None:
    """Join records by their keys along the slices; the file appears only whole, and on disk.

    The library's own writers copy everything twice, while no other thread runs, or put a file of their own, for its
    owner alone and without our lock, in this one's place. Here the system takes the bytes from where they are.

    Args:
        path: of the file.
        records: entry keys to records; those that are not empty agree in names, types and shapes but for the slices.
    """
    filled = [record for record in records.values() if record]
    columns = {name: [record[name] for record in filled] for name in (filled[0] if filled else ())}
    if filled:
        sums = [_checksum(record, row) for record in filled for row in range(count_slices(record))]
        columns[CHECKSUMS] = [torch.tensor(sums)]
    # Wide numbers first, as in files of the library: each begins at a multiple of its width.
    columns = dict(sorted(columns.items(), key=lambda column: (-column[1][0].element_size(), column[0])))
    contents = json.dumps([[key, count_slices(record)] for key, record in records.items()])
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(_header(columns, {"contents": contents, "crc32": _crc32_of(contents)}))
        for part in itertools.chain.from_iterable(columns.values()):
            file.write(_bytes_of(part))


def _header(columns: Mapping[str, Sequence[Tensor]], metadata: Mapping[str, str]) -> bytes:
    """Build a safetensors header: 8 bytes of length, then names, types, shapes and offsets as JSON, padded to 8."""
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, parts in columns.items():
        stop = start + sum(part.nbytes for part in parts)
        shape = [sum(map(len, parts)), *parts[0].shape[1:]]
        header[name] = {"dtype": TYPES[parts[0].dtype], "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(values: Tensor) -> np.ndarray:
    return values.contiguous().reshape(-1).view(torch.uint8).numpy()


def count_slices(record: Record) -> int:
    """Number of slices of a record."""
    return len(next(iter(record.values()))) if record else 0


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """Open a file of tensors, mapped into memory.

    Raises:
        FileNotFoundError: there is none, or it was removed meanwhile. Safetensors opens a file twice, the second time
            through torch, which has no error for that but a RuntimeError.
    """
    try:
        with safe_open(path, "pt") as file:
            yield file
    except RuntimeError as error:
        if path.exists():
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error


def read_contents(path: Path) -> list[tuple[str, int]]:
    """Entry keys and numbers of slices in the order of the file.

    Raises:
        DAMAGE: the file is damaged, or no shard.
        FileNotFoundError: there is none, or it may not be read.
    """
    with _opened(path) as file:
        metadata = file.metadata()
    if metadata["crc32"] != _crc32_of(metadata["contents"]):
        raise ValueError("its contents and their checksum disagree")
    return [(str(key), int(count)) for key, count in json.loads(metadata["contents"])]


def empty_rows(path: Path, count: int) -> Record:
    """Tensors ``[count,...]`` with the names, types and shapes of a shard's, not filled."""
    with _opened(path) as file:
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
    with _opened(path) as file:
        for name in _names(file):
            mapped = file.get_slice(name)
            for row, place in zip(rows, places, strict=True):
                into[name][place] = mapped[row]
        expected = file.get_slice(CHECKSUMS)
        for row, place in zip(rows, places, strict=True):
            if row in verify and _checksum(into, place) != int(expected[row]):
                raise ValueError(f"row {row} and its checksum disagree")


def tensor_names(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file."""
    with _opened(path) as file:
        return set(file.keys())


def _names(file: safe_open) -> list[str]:
    return [name for name in file.keys() if name != CHECKSUMS]  # noqa: SIM118


def _checksum(tensors: Record, row: int) -> int:
    """Checksum of one slice: of its names, types, shapes and bytes."""
    result = 0
    for name in sorted(tensors):
        value = tensors[name][row]
        result = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), result)
        result = zlib.crc32(_bytes_of(value), result)
    return result


def _crc32_of(contents: str) -> str:
    return f"{zlib.crc32(contents.encode()):08x}"
