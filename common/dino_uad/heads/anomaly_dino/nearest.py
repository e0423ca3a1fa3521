"""Exact nearest neighbours by cosine distance in a 16-bit memory bank, without a queries × bank buffer.

The bank is 16-bit fixed point: every row is scaled so that its largest component is 32767. At two bytes a component
this rounds about ten times finer than float16, and since a row's direction is all that counts, no scale is stored.

Where the processor multiplies bfloat16 much faster than float32, a first pass in bfloat16 finds for every query the
*groups* of rows that can hold a neighbour: its rounding error has a bound, so the others are excluded, not guessed
away. Only those groups are scored in float32. Queries for which very many groups qualify are scanned in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.heads.cosine import cosine_distance
from dino_uad.parallel import gather_rows, is_distributed, rank
from dino_uad.processor import fast_bfloat16
from dino_uad.tracing import is_traced

_QUERIES = 1024  # queries searched together; bounds every buffer
_SCANNED = {"cpu": 4096, "cuda": 65536}  # bank rows of one float32 product: in a processor's cache, or few kernels
_SLAB = 512  # groups compared by one 16-bit product: it and the running maximum stay in the processor's cache
_GROUP = 16  # consecutive bank rows that share one running maximum
_MOST = 256  # candidate groups of one query, above which it is scanned in float32


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
    search = _two_pass if _prefer_two_pass(queries, bank, k) else _scan
    # A trace must hold for any number of queries, so it does not split them.
    parts = [search(unit_rows(part), bank, k) for part in ([queries] if is_traced() else queries.split(_QUERIES))]
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
    counts = gather_rows(torch.tensor([len(queries)], device=queries.device)).tolist()
    everyone = gather_rows(queries)
    found = min(k, len(shard))
    mine = queries.new_empty(0, len(everyone), dtype=torch.float32)
    if found:
        mine = nearest_neighbours(everyone, shard, found)[0].T.contiguous()
    merged = gather_rows(mine)
    start = sum(counts[: rank()])
    own = merged[:, start : start + len(queries)]
    return own.topk(min(k, len(own)), dim=0, largest=False).values.T


def _prefer_two_pass(queries: Tensor, bank: Tensor, k: int) -> bool:
    """Whether 16-bit products are much faster here and there is enough to multiply.

    A trace needs the plain scan, and so does a GPU: the two passes are thousands of small kernels.
    """
    if is_traced() or queries.device.type != "cpu" or bank.device.type != "cpu":
        return False
    if len(bank) < 4 * _SLAB * _GROUP or len(queries) < 64 or k > 16:
        return False
    return fast_bfloat16(queries.device)


def _scan(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Running top ``k`` of the float32 similarities of unit queries ``[Q,C]``: ``[Q,k]`` and the rows' indices."""
    best = index = None
    chunk = _SCANNED.get(queries.device.type, _SCANNED["cpu"])
    for start in range(0, len(bank), chunk):
        rows = unit_rows(bank[start : start + chunk])
        similarity = queries @ rows.T
        top = similarity.max(dim=1, keepdim=True) if k == 1 else similarity.topk(min(k, len(rows)), dim=1)
        if best is not None:
            top = _largest(torch.cat([best, top[0]], dim=1), torch.cat([index, top[1] + start], dim=1), k)
        best, index = top
    return best, index


def _largest(values: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` (or all) largest values in each row of ``[Q,n]``, descending, with their indices."""
    top = values.topk(min(k, values.shape[1]), dim=1)
    return top.values, index.gather(1, top.indices)


def _two_pass(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As :func:`_scan`, through candidate groups of a 16-bit product."""
    query, first_row, crowded = _candidates(queries, bank, k)
    similarity, row = _score_groups(queries, bank, query, first_row)
    count = query.bincount(minlength=len(queries))
    slot = torch.arange(len(query), device=query.device) - (count.cumsum(0) - count)[query]
    table = queries.new_full((len(queries), max(int(count.max()), k), _GROUP), -torch.inf)
    rows = table.new_zeros(table.shape, dtype=torch.int64)
    table[query, slot], rows[query, slot] = similarity, row
    best, index = _largest(table.flatten(1), rows.flatten(1), k)
    if crowded.any():
        best[crowded], index[crowded] = _scan(queries[crowded], bank, k)
    return best, index


def _candidates(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Groups of bank rows that can hold one of the ``k`` nearest.

    Returns:
        query ``[n]`` (ascending) and first row ``[n]`` of each group, and the queries ``[Q]``, as bool, for which more
        than ``_MOST`` groups qualify; none of theirs is listed.
    """
    low = queries.bfloat16()
    slack, relative = _rounding(queries, low)
    best = torch.full((k, len(queries)), -torch.inf, device=queries.device)
    crowded = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
    count = torch.zeros_like(crowded, dtype=torch.int64)
    found = []
    for start, largest in _group_maxima(low, bank):
        here = largest.amax(dim=0, keepdim=True) if k == 1 else largest.float().topk(k, dim=0).values
        # Group maxima belong to distinct rows: the k-th largest is a lower bound of the k-th neighbour's similarity.
        best = torch.cat([best, here.float()]).topk(k, dim=0).values
        hit = (largest >= best[-1] - slack - relative * best[-1].abs()) & ~crowded
        count += hit.sum(dim=0)
        crowded |= count > _MOST
        member, query = hit.nonzero(as_tuple=True)
        found.append((largest[member, query].float(), query, member * _GROUP + start))
    value, query, first_row = (torch.cat(parts) for parts in zip(*found, strict=True))
    keep = (value >= (best[-1] - slack - relative * best[-1].abs())[query]) & ~crowded[query]
    query, order = query[keep].sort(stable=True)
    return query, first_row[keep][order], crowded


def _rounding(queries: Tensor, low: Tensor) -> tuple[Tensor, float]:
    """Absolute ``[Q]`` and relative part of how far below the ``k``-th best a neighbour's 16-bit similarity can be.

    ``|q.b - fl(q'.b')| <= |q - q'| |b'| + |q| |b - b'| + rounding of the result``; 1e-4 covers the accumulation in
    float32. Two similarities are compared: twice the bound.
    """
    unit_roundoff = torch.finfo(low.dtype).eps / 2
    query_error = (queries - low.float()).norm(dim=1)
    slack = 2 * (query_error + unit_roundoff + 1e-4) * (1 + 4 * unit_roundoff)
    return slack, 2 * unit_roundoff


def _group_maxima(low: Tensor, bank: Tensor) -> Iterator[tuple[int, Tensor]]:
    """For each section of the bank its start and, ``[_SLAB,Q]``, the largest similarity in each group of rows.

    Group ``i`` is ``_GROUP`` rows from ``start + i * _GROUP`` on; a negative largest similarity is given as 0. The
    tensor is overwritten by the next section.
    """
    transposed = low.T.contiguous()
    exact = torch.empty(_SLAB, bank.shape[1], device=bank.device)
    rows = torch.empty_like(exact, dtype=low.dtype)
    product = torch.empty(_SLAB, len(low), dtype=low.dtype, device=low.device)
    largest = torch.empty_like(product)
    bits = largest.view(torch.int16), product.view(torch.int16)
    for start in range(0, len(bank), _SLAB * _GROUP):
        largest.zero_()
        section = bank[start : start + _SLAB * _GROUP]
        for slab in (section[offset::_GROUP] for offset in range(_GROUP)):
            n = len(slab)
            exact[:n].copy_(slab)
            norm = exact[:n].norm(dim=1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
            rows[:n].copy_(exact[:n].mul_(norm.reciprocal_()))
            torch.mm(rows[:n], transposed, out=product[:n])
            # Bit patterns of non-negative floats are ordered like integers, whose maximum takes half the time.
            torch.maximum(bits[0][:n], bits[1][:n], out=bits[0][:n])
        yield start, largest


def _score_groups(queries: Tensor, bank: Tensor, query: Tensor, first_row: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 similarities ``[n,_GROUP]`` of each query to the rows of its group, and the rows' indices."""
    rows = first_row[:, None] + torch.arange(_GROUP, device=bank.device)
    similarity = torch.empty(rows.shape, device=bank.device)
    for part in torch.arange(len(rows), device=bank.device).split(512):
        vectors = bank.index_select(0, rows[part].clamp_max(len(bank) - 1).flatten()).float()
        product = vectors.view(len(part), _GROUP, bank.shape[1]) @ queries[query[part], :, None]
        norm = vectors.norm(dim=1).clamp_min_(torch.finfo(torch.float32).tiny)
        similarity[part] = product.squeeze(2) / norm.view(-1, _GROUP)
    return similarity.masked_fill_(rows >= len(bank), -torch.inf), rows
