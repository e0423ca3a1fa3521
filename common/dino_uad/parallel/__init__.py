"""Processes that work together: how they meet, what they tell each other, and how work is divided among them."""

from dino_uad.parallel.collectives import (
    all_reduce_sum,
    broadcast,
    broadcast_object,
    collect_rows,
    counts,
    gather_objects,
    gather_rows,
    sum_gradients,
)
from dino_uad.parallel.division import join_shares, own_place, section, share
from dino_uad.parallel.group import (
    is_distributed,
    patience,
    process_group,
    rank,
    start_process_group,
    stop_process_group,
    world_size,
)
from dino_uad.parallel.machine import loader_workers, rank_device

__all__ = [
    "all_reduce_sum",
    "broadcast",
    "broadcast_object",
    "collect_rows",
    "counts",
    "gather_objects",
    "gather_rows",
    "is_distributed",
    "join_shares",
    "loader_workers",
    "own_place",
    "patience",
    "process_group",
    "rank",
    "rank_device",
    "section",
    "share",
    "start_process_group",
    "stop_process_group",
    "sum_gradients",
    "world_size",
]
