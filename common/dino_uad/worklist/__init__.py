"""What a person does with many new scans: one table of all, worst first, that survives a stopped run."""

from dino_uad.worklist.rows import SAVED, RunStore
from dino_uad.worklist.thumbnails import Glance, colours, marked_plane, thumbnail
from dino_uad.worklist.worklist import Worklist

__all__ = [
    "SAVED",
    "Glance",
    "RunStore",
    "Worklist",
    "colours",
    "marked_plane",
    "thumbnail",
]
