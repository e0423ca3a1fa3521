"""Approximate search in a memory bank, ``index: faiss``, against the exact one: what it finds, and what it saves."""

from __future__ import annotations

import time

import torch

from dino_uad.bench.row import Row
from dino_uad.bench.rows.neighbours import DIM, POSITIONS, SIDE, sections
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import EmbeddingRows
from dino_uad.heads.anomaly_dino import FaissIndex, encode_rows, nearest_neighbours
from dino_uad.measure import MEGABYTE

SAME = 1e-6  # distances that differ by less are of the same row


def approximate(settings: Settings) -> Row:
    """256 queries in a bank of a million patch embeddings, index and exact search."""
    return _approximate("index", settings, *settings.size((1600, 256), (40, 64)))


def approximate_large(settings: Settings) -> Row:
    """The same in ten million, a bank of 7.7 GB."""
    return _approximate("index_large", settings, *settings.size((16000, 256), (40, 64)))


def _approximate(name: str, settings: Settings, images: int, n_queries: int) -> Row:
    import faiss

    row = Row(name, "Approximate neighbour", {"queries": n_queries, "bank": images * POSITIONS, "C": DIM}, settings)
    stream = EmbeddingRows(SIDE, DIM)
    queries = stream.draw(-(-n_queries // POSITIONS))[:n_queries].to(settings.device)
    bank = torch.empty(images * POSITIONS, DIM, dtype=torch.int16)
    for start, rows in sections(stream, images):
        bank[start : start + len(rows)] = encode_rows(rows)
    bank = bank.to(settings.device)
    faiss.omp_set_num_threads(settings.threads)
    index = FaissIndex(DIM)
    before = time.perf_counter()
    index.build(bank)
    row.figure("building the index", time.perf_counter() - before, "s")
    row.figure("memory beside the bank", sum(part.nbytes for part in index.buffers()) / MEGABYTE, "MB")
    found = index.search(queries, bank, 1)[:, 0].double().cpu()
    exact = nearest_neighbours(queries, bank)[0][:, 0].double().cpu()
    row.figure("patches whose nearest row is found", 100 * float((found - exact < SAME).double().mean()), "%")
    row.figure("mean distance above the exact one", 100 * float(found.mean() / exact.mean() - 1), "%")
    row.time({"exact": lambda: nearest_neighbours(queries, bank), "index": lambda: index.search(queries, bank, 1)})
    row.ratio("exact / index", "exact", "index")
    row.check("a distance below the nearest one", (exact - found).clamp_min(0).max(), SAME)
    return row
