"""Heads that are trained by gradients: what :class:`~dino_uad.engines.EmbeddingTrainer` and the configs ask of them."""

from __future__ import annotations

import torch
from torch import Tensor

from dino_uad.heads.channel_scale import ChannelScale
from dino_uad.heads.head import Head


class GradientHead(Head):
    """A head that predicts embeddings, and learns from how far it is off; see :class:`Head` for the rest.

    What is trained is :meth:`predict`. The trainer gives it embeddings as :meth:`standardized`, with noise if the
    config says so; its target is the same without noise. A forward pass in training mode makes it count as fitted.

    Args:
        embed_dim: number of channels ``C`` of the embeddings.
        standardize: whether the network sees and predicts channels of zero mean and unit variance, as measured on the
            training embeddings before the first step.
    """

    def __init__(self, embed_dim: int, standardize: bool = False) -> None:
        super().__init__(embed_dim)
        self.scale = ChannelScale(embed_dim) if standardize else None
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))

    @property
    def fitted(self) -> bool:
        """Whether the head has been trained, or loaded from a trained one."""
        return bool(self.batches_seen > 0)

    def standardized(self, embeddings: Tensor) -> Tensor:
        """Inputs and targets of the network: ``[B,C,h,w]`` float32, standardised if the head does that."""
        return embeddings.float() if self.scale is None else self.scale(embeddings)

    def predict(self, embeddings: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Predictions of embeddings ``[B,C,h,w]``, of the same shape, one or several; both as :meth:`standardized`."""
        raise NotImplementedError

    def forward(self, embeddings: Tensor) -> Tensor | tuple[Tensor, ...]:
        """:meth:`predict`; in training mode the batch is counted."""
        if self.training:
            self.batches_seen += 1
        return self.predict(embeddings)
