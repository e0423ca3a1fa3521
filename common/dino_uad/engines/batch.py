"""How the engines read a batch of an :class:`~dino_uad.embeddings.loader.EmbeddingLoader`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def unpack(batch: Mapping[str, Tensor], device: torch.device | str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Embeddings ``[B,C,h,w]``, cls ``[B,C]`` and foreground ``[B,1,h,w]`` bool or None, on ``device``.

    Embeddings stay in the precision they were cached in; the heads raise it where they need to.
    """
    mask = batch.get("foreground")
    return (
        batch["embedding"].to(device, non_blocking=True),
        batch["cls"].to(device, non_blocking=True),
        None if mask is None else mask.to(device, non_blocking=True),
    )
