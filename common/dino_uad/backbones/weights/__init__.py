"""The weight store: a backbone's name to verified tensors, from a file, the cache, or a download."""

from dino_uad.backbones.weights.registry import SOURCES, WeightSource
from dino_uad.backbones.weights.store import cache_folder, fetch, locate, resolve

__all__ = [
    "SOURCES",
    "WeightSource",
    "cache_folder",
    "fetch",
    "locate",
    "resolve",
]
