"""Patch embeddings of images as rows, and what is said of rows as maps of images."""

from __future__ import annotations

from torch import Tensor


def rows_of(embeddings: Tensor, embed_dim: int) -> Tensor:
    """``[B,C,h,w]`` to ``[B*h*w,C]``, row after row in memory.

    Raises:
        ValueError: ``C`` is not ``embed_dim``.
    """
    if embeddings.ndim != 4 or embeddings.shape[1] != embed_dim:
        raise ValueError(
            f"embeddings have shape {list(embeddings.shape)}, expected [B,{embed_dim},h,w]: "
            "use the backbone this head was built for"
        )
    return embeddings.permute(0, 2, 3, 1).reshape(-1, embed_dim).contiguous()


def maps_of(values: Tensor, embeddings: Tensor) -> Tensor:
    """``[B*h*w]``, one of each row of ``embeddings`` ``[B,C,h,w]``, to ``[B,1,h,w]``."""
    return values.reshape(embeddings.shape[0], 1, *embeddings.shape[2:])
