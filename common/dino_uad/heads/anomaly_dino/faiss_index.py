"""Approximate nearest neighbours for banks of millions of rows: faiss finds candidates, the bank itself measures them.

An inverted file (the bank divided into cells by K-means, of which a query visits the nearest) over product-quantised
residuals (Jégou et al., PAMI 2011), as `faiss <https://github.com/facebookresearch/faiss>`_ has it: 48 bytes and a
number a row for a ViT-S. Codes alone would blur every distance, so the best candidates are compared in the 16-bit bank:
a distance is exact for the row it belongs to, and too large where the nearest row was not among the candidates.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dino_uad.heads.anomaly_dino.nearest import unit_rows
from dino_uad.heads.head import DynamicBuffers
from dino_uad.parallel import broadcast, rank
from dino_uad.unequal_work import unequal_work

CELL_ROWS = 39  # faiss asks for so many training rows a cell
CODE_CHANNELS = 8  # channels that share one byte of a code
PROBES = 64  # cells that a query visits
CANDIDATES = 64  # rows that are compared exactly
_ROWS = 65536  # bank rows decoded at once
_QUERIES = 1024


class FaissIndex(DynamicBuffers):
    """IVF-PQ index of a memory bank, kept as plain tensors, so that a model file still holds nothing else.

    Args:
        embed_dim: channels ``C``, a multiple of 8.

    Raises:
        ImportError: faiss is not installed.
        ValueError: ``C`` cannot be divided.
    """

    dynamic_buffers = ("centroids", "codebooks", "codes", "cells")

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        _faiss()
        if embed_dim % CODE_CHANNELS:
            raise ValueError(f"index 'faiss' needs channels in groups of {CODE_CHANNELS}, found {embed_dim}")
        self.parts = embed_dim // CODE_CHANNELS
        self.register_buffer("centroids", torch.empty(0, embed_dim))  # [L,C] of the cells
        self.register_buffer("codebooks", torch.empty(self.parts, 0, CODE_CHANNELS))  # [C/8,256,8]
        self.register_buffer("codes", torch.empty(0, self.parts, dtype=torch.uint8))  # [M,C/8]
        self.register_buffer("cells", torch.empty(0, dtype=torch.int32))  # [M]
        self._built: Any = None

    def build(self, bank: Tensor) -> None:
        """Learn cells and codes from a bank ``[M,C]`` and encode its rows; rank 0 does it for all ranks."""
        bits = _code_bits(len(bank))
        shapes = {
            "centroids": (_cell_count(len(bank)), bank.shape[1]),
            "codebooks": (self.parts, 1 << bits, CODE_CHANNELS),
            "codes": (len(bank), self.parts),
            "cells": (len(bank),),
        }
        with unequal_work() as meet:
            made = _build(bank) if rank() == 0 else {}
            meet()
        for name, shape in shapes.items():
            buffer = getattr(self, name)
            value = made.get(name, torch.empty(shape, dtype=buffer.dtype))
            setattr(self, name, broadcast(value.to(bank.device)))
        self._built = None

    @torch.no_grad()
    def search(self, queries: Tensor, bank: Tensor, k: int) -> Tensor:
        """Cosine distances of queries ``[Q,C]`` to ``k`` near bank rows: ``[Q,min(k,M)]`` float32, ascending."""
        if self._built is None:
            self._built = self._as_faiss()
        k = min(k, len(bank))
        found = []
        for part in queries.split(_QUERIES):
            unit = unit_rows(part)
            _, near = self._built.search(unit.cpu().numpy(), max(k, min(CANDIDATES, len(bank))))
            near = torch.from_numpy(near).to(bank.device)
            similarity = (unit_rows(bank[near.clamp_min(0)].flatten(0, 1)).view(*near.shape, -1) @ unit[:, :, None])[
                ..., 0
            ]
            found.append(1 - similarity.masked_fill(near < 0, -torch.inf).topk(k, dim=1).values)
        return torch.cat(found) if found else queries.new_empty((0, k), dtype=torch.float32)

    def _as_faiss(self) -> Any:
        """The index as faiss has it; the kept tensors are checked by their shapes first."""
        faiss = _faiss()
        cells, codes = self.cells.cpu().numpy(), self.codes.cpu().numpy()
        if len(cells) != len(codes) or not len(codes) or cells.min() < 0 or cells.max() >= len(self.centroids):
            raise ValueError("the faiss index of this model is damaged: fit again")
        index = _empty(len(self.centroids), self.centroids.shape[1], int(math.log2(self.codebooks.shape[1])))
        index.quantizer.add(self.centroids.cpu().float().numpy())
        faiss.copy_array_to_vector(self.codebooks.cpu().float().numpy().ravel(), index.pq.centroids)
        index.is_trained = True
        order = cells.argsort(kind="stable")
        starts = [0, *torch.from_numpy(cells).long().bincount(minlength=len(self.centroids)).cumsum(0).tolist()]
        codes = codes[order]
        for cell in range(len(self.centroids)):
            members = slice(starts[cell], starts[cell + 1])
            count = members.stop - members.start
            if count:
                ids, content = order[members].astype("int64"), codes[members].copy()
                index.invlists.add_entries(cell, count, faiss.swig_ptr(ids), faiss.swig_ptr(content))
        index.ntotal = len(codes)
        index.nprobe = PROBES
        index.precompute_table()
        return index

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        self._built = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": None}


def _build(bank: Tensor) -> dict[str, Tensor]:
    faiss = _faiss()
    rows, bits = len(bank), _code_bits(len(bank))
    index = _empty(_cell_count(rows), bank.shape[1], bits)
    sample = torch.randperm(rows, generator=torch.Generator().manual_seed(0))[: 64 * _cell_count(rows) + 256 * 64]
    index.train(unit_rows(bank[sample.sort().values.to(bank.device)]).cpu().numpy())
    cells, codes = [], []
    for part in bank.split(_ROWS):
        unit = unit_rows(part).cpu().numpy()
        cell = index.quantizer.search(unit, 1)[1][:, 0]
        residual = unit - index.quantizer.reconstruct_batch(cell)
        cells.append(torch.from_numpy(cell).int())
        codes.append(torch.from_numpy(index.pq.compute_codes(residual)))
    books = torch.from_numpy(faiss.vector_to_array(index.pq.centroids)).view(-1, 1 << bits, CODE_CHANNELS)
    centroids = torch.from_numpy(index.quantizer.reconstruct_n(0, index.nlist))
    return {"centroids": centroids, "codebooks": books, "codes": torch.cat(codes), "cells": torch.cat(cells)}


def _empty(cells: int, channels: int, bits: int) -> Any:
    faiss = _faiss()
    index = faiss.IndexIVFPQ(faiss.IndexFlatL2(channels), channels, cells, channels // CODE_CHANNELS, bits)
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # no warnings on standard output
    return index


def _cell_count(rows: int) -> int:
    """About four times the square root of the rows, with enough rows a cell to place it."""
    return max(1, min(round(4 * math.sqrt(rows)), rows // CELL_ROWS))


def _code_bits(rows: int) -> int:
    """8 bits a code; fewer only for banks so small that they need no index, such as those of tests."""
    return max(1, min(8, int(math.log2(max(2, rows)))))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "index 'faiss' needs faiss, which is not installed: pip install -r requirements-faiss.txt "
            "(or faiss-cpu), or leave network_def#head#index out for the exact search"
        ) from error
    return faiss
