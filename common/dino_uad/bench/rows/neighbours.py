"""Exact nearest neighbours in a large memory bank, against faiss or, where it is not installed, a plain product."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import EmbeddingRows
from dino_uad.heads.anomaly_dino import encode_rows, nearest_neighbours, search_name, unit_rows
from dino_uad.measure import MEGABYTE

DIM = 384
SIDE = 25  # patches along a made-up image's edge; 1600 images make a million
POSITIONS = SIDE**2
TOGETHER = 50  # made-up images whose rows are held at once


def nearest(settings: Settings) -> Row:
    """1024 queries in a bank of a million patch embeddings."""
    images, n_queries = settings.size((1600, 1024), (40, 64))
    n_rows = images * POSITIONS
    row = Row("nearest", "Exact nearest neighbour", {"queries": n_queries, "bank": n_rows, "C": DIM}, settings)
    queries, bank, peer, exact = _build(images, n_queries, settings)
    row.time({"ours": lambda: nearest_neighbours(queries, bank), peer.name: peer.search})
    row.ratio(f"{peer.name} / ours", peer.name, "ours", at_least=2)
    row.figure(f"memory of the bank / {peer.name}'s", bank.nbytes / peer.bytes, "×", at_most=0.5)
    row.figure("memory of the bank", bank.nbytes / MEGABYTE, "MB")
    buffer = n_queries * n_rows * 4 / MEGABYTE
    row.memory("ours", lambda: nearest_neighbours(queries, bank), at_most=buffer / 4)
    row.notes.append(f"A queries × bank buffer in float32 would take {buffer:.0f} MB.")
    row.notes.append(f"Search that was chosen here by measuring: {search_name(queries, bank)}.")
    found = nearest_neighbours(queries, bank)[0][:, 0].double().cpu()
    row.check("distance, against float64 on the embeddings before rounding", (found - exact).abs().max(), 1e-5)
    row.check(f"{peer.name}, same", (peer.search() - exact).abs().max(), 1e-4)
    return row


def _build(images: int, n_queries: int, settings: Settings) -> tuple[Tensor, Tensor, Any, Tensor]:
    """Queries, bank, peer, and the exact distances ``[Q]`` in float64, from a bank that is never held in float32."""
    stream = EmbeddingRows(SIDE, DIM)
    queries = stream.draw(-(-n_queries // POSITIONS))[:n_queries]
    wide = functional.normalize(queries.double(), dim=1)
    bank = torch.empty(images * POSITIONS, DIM, dtype=torch.int16)
    use_faiss = find_spec("faiss") is not None and settings.device.type == "cpu"
    peer = _Faiss(queries, settings) if use_faiss else _Product(queries, settings)
    best = torch.full((n_queries,), -torch.inf, dtype=torch.float64)
    for start, rows in sections(stream, images):
        bank[start : start + len(rows)] = encode_rows(rows)
        peer.add(rows)
        best = torch.maximum(best, (wide @ functional.normalize(rows.double(), dim=1).T).amax(1))
    return queries.to(settings.device), bank.to(settings.device), peer, 1 - best


def sections(stream: EmbeddingRows, images: int) -> Iterator[tuple[int, Tensor]]:
    """The rows of so many made-up images, some at a time, and where they begin."""
    for first in range(0, images, TOGETHER):
        yield first * POSITIONS, stream.draw(min(TOGETHER, images - first))


class _Faiss:
    """``IndexFlatL2`` of unit vectors; its squared distances are twice the cosine distances."""

    name = "faiss IndexFlatL2"

    def __init__(self, queries: Tensor, settings: Settings) -> None:
        import faiss

        faiss.omp_set_num_threads(settings.threads)
        self._index = faiss.IndexFlatL2(queries.shape[1])
        self._queries = unit_rows(queries).numpy()

    @property
    def bytes(self) -> int:
        return self._index.ntotal * self._index.code_size

    def add(self, rows: Tensor) -> None:
        self._index.add(unit_rows(rows).numpy())

    def search(self) -> Tensor:
        """``[Q]`` cosine distances."""
        return torch.from_numpy(self._index.search(self._queries, 1)[0][:, 0]).double() / 2


class _Product:
    """A float32 bank of unit vectors and one product per 4096 rows: what people write without faiss."""

    name = "plain float32 products"

    def __init__(self, queries: Tensor, settings: Settings) -> None:
        self._queries = unit_rows(queries).to(settings.device)
        self._parts: list[Tensor] = []

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in self._parts)

    def add(self, rows: Tensor) -> None:
        self._parts.extend(part.clone() for part in unit_rows(rows).to(self._queries.device).split(4096))

    def search(self) -> Tensor:
        """``[Q]`` cosine distances."""
        best = torch.full((len(self._queries),), -torch.inf, device=self._queries.device)
        for part in self._parts:
            best = torch.maximum(best, (self._queries @ part.T).amax(1))
        return (1 - best.double()).cpu()
