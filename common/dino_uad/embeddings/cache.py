"""Embeddings on disk: one file for one entry of a data list, found again by what it was made from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dino_uad.backbones import DinoBackbone
from dino_uad.files import atomic_path, describe, digest_paths

logger = logging.getLogger(__name__)

PATH_KEYS = ("image", "label")


class EmbeddingCache:
    """Files named by a digest of an entry's own files, the transform, and the backbone with its weights.

    Args:
        folder: of the files; it is made when the first one is written.
        transform: what turns an entry into images.
        backbone: what turns images into embeddings.
    """

    def __init__(self, folder: str | Path, transform: Callable, backbone: DinoBackbone) -> None:
        self.folder = Path(folder)
        self.transform = transform
        self.backbone = backbone

    def path(self, entry: Mapping[str, Any]) -> Path:
        """Where the record of ``entry`` is or will be."""
        backbone = self.backbone
        facts = {
            "files": digest_paths([entry[key] for key in PATH_KEYS if entry.get(key)]),
            "transform": describe(self.transform),
            "backbone": [backbone.identity, list(backbone.layers), backbone.final_norm, backbone.precision],
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{digest}.safetensors"

    @staticmethod
    def load(path: Path) -> dict[str, Tensor] | None:
        """The record in a file; None, with a warning if the file is damaged, where there is none."""
        if not path.is_file():
            return None
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            logger.warning(f"cache file {path.name} is damaged ({error}); it is made again")
            return None

    @staticmethod
    def save(record: Mapping[str, Tensor], path: Path) -> None:
        """Write a record; the file appears only whole."""
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(dict(record)))
