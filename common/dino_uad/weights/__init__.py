"""The weight store: a backbone's name to verified tensors, from a file, the cache, or a download."""

from dino_uad.weights.store import cache_folder, fetch, locate, resolve

__all__ = ["cache_folder", "fetch", "locate", "resolve"]
