"""The frozen backbone runs once for all methods: a stand-in that gives back cached embeddings."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from dino_uad.backbones import DinoBackbone
from dino_uad.embeddings import EmbeddingDataset


class ReplayedBackbone(nn.Module):
    """Takes the place of a detector's backbone in an evaluation whose images are those of a data set, in its order.

    Args:
        backbone: the one it stands for.
        embeddings: what that one made of the images.
    """

    def __init__(self, backbone: DinoBackbone, embeddings: EmbeddingDataset) -> None:
        super().__init__()
        self.arch, self.patch_size, self.embed_dim = backbone.arch, backbone.patch_size, backbone.embed_dim
        self._embeddings = embeddings
        self._read = self._given = 0
        self._batch: tuple[Tensor, Tensor]

    def attach(self, engine: Engine) -> None:
        """Read a batch of the engine's before the network is timed on it, and see to it that all were used."""
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._load)
        engine.add_event_handler(Events.COMPLETED, self._require_all)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings ``[B,C,h,w]`` and class tokens ``[B,C]`` of the next ``B`` images."""
        place = slice(self._given, self._given + len(image))
        self._given += len(image)
        return tuple(values[place] for values in self._batch)

    def _load(self, engine: Engine) -> None:
        count = len(engine.state.batch["image"])
        stop = min(self._read + count, len(self._embeddings))
        record = self._embeddings.batch(range(self._read, stop))
        self._batch = tuple(record[key].to(engine.state.device, torch.float32) for key in ("embedding", "cls"))
        self._read, self._given = self._read + count, 0

    def _require_all(self) -> None:
        if self._read != len(self._embeddings):
            raise RuntimeError(f"{len(self._embeddings)} embeddings for {self._read} test images; remove the cache")
