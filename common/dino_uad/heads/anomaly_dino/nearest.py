"""Exact nearest neighbours by cosine distance in a 16-bit memory bank, without a queries × bank buffer.

The bank is 16-bit fixed point: every row is scaled so that its largest component is 32767. At two bytes a component
this rounds about ten times finer than float16, and since a row's direction is all that counts, no scale is stored.

Where the processor multiplies 8-bit integers or bfloat16 much faster than float32, such products give a bound of the
similarity to every row (:mod:`dino_uad.heads.anomaly_dino.first_pass`), elsewhere float32 products along the bank's
principal directions do (:mod:`dino_uad.heads.anomaly_dino.folded_pass`); and only the rows that can be a neighbour are
scored in float32 (:mod:`dino_uad.heads.anomaly_dino.two_pass`): the others are excluded, not guessed away. Queries for
which very many rows qualify are scanned in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.heads.anomaly_dino import two_pass
from dino_uad.heads.anomaly_dino.fastest_pass import QUERIES, fastest
from dino_uad.heads.anomaly_dino.first_pass import FirstPass
from dino_uad.heads.cosine import cosine_distance
from dino_uad.parallel import counts, gather_rows, is_distributed, own_place
from dino_uad.tracing import is_traced

_SCANNED = {"cpu": 4096, "cuda": 12288}  # bank rows of one float32 product: in a processor's cache, or few kernels
_Search = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
_MANY_ROWS = 32768  # from here on two passes may be worth it


def encode_rows(features: Tensor) -> Tensor:
    """Directions of ``[N,C]`` features as int16 bank rows; :func:`unit_rows` decodes them."""
    features = features.float()
    largest = features.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return (features / largest * 32767).round().to(torch.int16)


def unit_rows(rows: Tensor) -> Tensor:
    """``[N,C]`` rows of any dtype (a bank's int16 included) to float32 unit vectors; zero rows stay zero."""
    return functional.normalize(rows.float(), dim=1)


def nearest_neighbours(queries: Tensor, bank: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Cosine distances ``1 - cos`` of every query to its ``k`` nearest bank rows, exact to float32 rounding.

    Args:
        queries: ``[Q,C]``, any length and floating dtype.
        bank: ``[M,C]`` from :func:`encode_rows`, or any floating dtype, on the same device.
        k: number of neighbours; fewer are returned when the bank is smaller.

    Returns:
        distances ``[Q,min(k,M)]`` float32, ascending, and the rows' indices, int64. Which of several equally distant
        rows comes first is not defined.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    if len(bank) == 0:
        raise ValueError("the memory bank is empty: fit it on at least one normal image")
    if queries.shape[1] != bank.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} channels, the memory bank {bank.shape[1]}: one backbone?")
    k = min(k, len(bank))
    search, together = _choose_search(queries, bank, k)[1:]
    # A trace must hold for any number of queries, so it does not split them.
    parts = [search(unit_rows(part), bank, k) for part in ([queries] if is_traced() else queries.split(together))]
    similarity, index = (torch.cat(results) for results in zip(*parts, strict=True))
    return (1 - similarity, index) if is_traced() else _measured(queries, bank, index)


def _measured(queries: Tensor, bank: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Distances ``[Q,k]`` of queries to their rows, free of the products' cancellation, ascending; and the indices."""
    rows = unit_rows(bank[index.flatten()]).view(*index.shape, bank.shape[1])
    distance, order = cosine_distance(unit_rows(queries)[:, None], rows).sort(dim=1)
    return distance, index.gather(1, order)


def nearest_neighbours_sharded(queries: Tensor, shard: Tensor, k: int = 1) -> Tensor:
    """Distances of :func:`nearest_neighbours` to a bank of which every rank holds a part; all ranks must call it.

    Args:
        queries: this rank's ``[Q_r,C]``; may be empty.
        shard: this rank's rows ``[M_r,C]`` of the bank; may be empty.

    Returns:
        ``[Q_r,min(k,M)]`` distances over the whole bank, ascending.
    """
    if not is_distributed():
        return nearest_neighbours(queries, shard, k)[0]
    everyone = gather_rows(queries)
    found = min(k, len(shard))
    mine = queries.new_empty(0, len(everyone), dtype=torch.float32)
    if found:
        mine = nearest_neighbours(everyone, shard, found)[0].T.contiguous()
    merged = gather_rows(mine)
    own = merged[:, own_place(counts(len(queries), queries.device))]
    return own.topk(min(k, len(own)), dim=0, largest=False).values.T


def search_name(queries: Tensor, bank: Tensor) -> str:
    """How :func:`nearest_neighbours` would search for the nearest row, in words."""
    return _choose_search(queries, bank, 1)[0]


def _choose_search(queries: Tensor, bank: Tensor, k: int) -> tuple[str, _Search, int]:
    """The plain scan, or two passes where there is enough to multiply and they were measured to be faster.

    A trace needs the plain scan, and so does a GPU: the two passes are thousands of small kernels.

    Returns:
        its name, the search, and for how many queries it searches together.
    """
    plain = ("plain float32 scan", _scan, QUERIES)
    if is_traced() or queries.device.type != "cpu" or bank.device.type != "cpu":
        return plain
    if len(bank) < _MANY_ROWS or len(queries) < 64 or k > 16:
        return plain
    way = fastest(queries, bank, _scan)
    return plain if way is None else (way.name, partial(_two_pass, first=way.first), way.queries)


def _scan(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Running top ``k`` of the float32 similarities of unit queries ``[Q,C]``: ``[Q,k]`` and the rows' indices."""
    best = index = None
    chunk = _SCANNED.get(queries.device.type, _SCANNED["cpu"])
    for start in range(0, len(bank), chunk):
        top = _scan_part(queries, bank[start : start + chunk], k)
        if best is not None:
            top = two_pass.largest(torch.cat([best, top[0]], dim=1), torch.cat([index, top[1] + start], dim=1), k)
        best, index = top
    return best, index


def _scan_part(queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    similarity = queries @ unit_rows(rows).T
    return similarity.max(dim=1, keepdim=True) if k == 1 else similarity.topk(min(k, len(rows)), dim=1)


def _two_pass(queries: Tensor, bank: Tensor, k: int, first: Callable[[Tensor], FirstPass]) -> tuple[Tensor, Tensor]:
    """As :func:`_scan`, through the groups of rows that a coarse product does not exclude."""
    best, index, crowded = two_pass.search(queries, bank, k, first)
    if crowded.any():
        best[crowded], index[crowded] = _scan(queries[crowded], bank, k)
    return best, index
