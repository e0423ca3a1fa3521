"""The backbone runs once per image and fit: data set, store and loader of patch embeddings."""

from dino_uad.embeddings.dataset import EmbeddingDataset
from dino_uad.embeddings.identity import backbone_facts, entry_key, identify, store_facts
from dino_uad.embeddings.loader import EmbeddingLoader
from dino_uad.embeddings.loading import load_slices
from dino_uad.embeddings.slices import Slices
from dino_uad.embeddings.store import EmbeddingStore
from dino_uad.embeddings.with_foreground import flattened

__all__ = [
    "EmbeddingDataset",
    "EmbeddingLoader",
    "EmbeddingStore",
    "Slices",
    "backbone_facts",
    "entry_key",
    "flattened",
    "identify",
    "load_slices",
    "store_facts",
]
