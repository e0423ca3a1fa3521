"""Patch embeddings as a MONAI dictionary transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from dino_uad.backbones import DinoBackbone


class DinoEmbedd(MapTransform):
    """Adds the patch embeddings and class token of an image, so that MONAI's caching data sets run the backbone once.

    Images ``[C,H,W]`` give ``[E,h,w]`` and ``[E]``, batches ``[B,C,H,W]`` give ``[B,E,h,w]`` and ``[B,E]``, all on CPU.

    Args:
        keys: the image in [0, 1]; it stays in the dictionary.
        backbone: frozen feature extractor.
        embedding_key: where the embeddings go.
        cls_key: where the class token goes.
        dtype: precision in which both are kept.
        device: where the backbone runs.

    Raises:
        ValueError: the image is neither ``[C,H,W]`` nor ``[B,C,H,W]``, or its embeddings are not finite in ``dtype``.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        backbone: DinoBackbone | None = None,
        embedding_key: str = "embedding",
        cls_key: str = "cls",
        dtype: torch.dtype | str = torch.float16,
        device: torch.device | str = "cpu",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if backbone is None or len(self.keys) != 1:
            raise ValueError(f"backbone {backbone}, keys {self.keys}: expected a DinoBackbone and one key")
        self.backbone = backbone
        self.embedding_key = embedding_key
        self.cls_key = cls_key
        self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key]).as_subclass(Tensor)
            if image.ndim not in (3, 4):
                raise ValueError(
                    f"{key!r} has shape {list(image.shape)}; expected [C,H,W] or [B,C,H,W]: take slices first"
                )
            batch = image if image.ndim == 4 else image[None]
            embeddings, cls = self.backbone.to(self.device)(batch.to(self.device, torch.float32))
            embeddings, cls = embeddings.to("cpu", self.dtype), cls.to("cpu", self.dtype)
            if not embeddings.isfinite().all():
                raise ValueError(f"embeddings of {key!r} are not finite in {self.dtype}; use dtype float32")
            result[self.embedding_key] = embeddings if image.ndim == 4 else embeddings[0]
            result[self.cls_key] = cls if image.ndim == 4 else cls[0]
        return result
