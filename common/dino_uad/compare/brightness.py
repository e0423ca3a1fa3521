"""What the steps around a head make of brightness alone: the baseline that says what embeddings are good for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dino_uad.heads import Head, box_mean


class PatchBrightness(nn.Module):
    """Stands in a backbone's place: the embedding of a patch is its mean brightness, one channel.

    Args:
        patch_size: side of a patch in pixels.
    """

    arch, layers, final_norm, joined, embed_dim = "brightness", (0,), False, False, 1
    precision, compiled = "float32", False

    def __init__(self, patch_size: int = 14) -> None:
        super().__init__()
        self.patch_size, self.identity = patch_size, f"brightness of {patch_size} pixels"

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """``[B,1|3,H,W]`` in [0, 1] to embeddings ``[B,1,h,w]`` and, for a class token, their mean ``[B,1]``."""
        patches = F.avg_pool2d(image.amax(dim=1, keepdim=True), self.patch_size)
        return patches, patches.mean(dim=(2, 3))


class BrightnessHead(Head):
    """Brighter is more anomalous: the mean over the detector's neighbourhood; there is nothing to learn."""

    single_pass = True
    averages_embeddings = False  # as unit vectors, single channels would all be 1
    fitted = True

    def fit_batch(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> dict[str, float]:
        return {}

    def score(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``[B,1,h,w]`` to the same shape."""
        return box_mean(embeddings.float(), self.neighbourhood)
