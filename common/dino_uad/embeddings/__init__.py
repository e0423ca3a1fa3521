"""The backbone runs once per image and fit: data set, cache and loader of patch embeddings."""

from dino_uad.embeddings.dataset import EmbeddingDataset
from dino_uad.embeddings.identity import entry_key
from dino_uad.embeddings.loader import EmbeddingLoader

__all__ = [
    "EmbeddingDataset",
    "EmbeddingLoader",
    "entry_key",
]
