"""Augmentations under which cached teacher features stay valid: crops on the patch grid, and changes of intensity.

A vision transformer does not commute with geometry exactly. DINOv2 ViT-S/14 (mean of blocks 9 and 12) on generated
heads: the features of a crop and the crop of the features have cosine similarity 0.95, those of the mirrored image and
the mirrored features only 0.78, because position is part of what the features say. So nothing is mirrored here; a
mirrored copy of the images in the data folder gets features of its own. Changes of intensity touch the student's image
alone: the target stays what the teacher saw in the clean one (0.98).
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_CROP = 0.5


def augment(
    image: Tensor, embedding: Tensor, generator: torch.Generator, crop_probability: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Crop and re-window a batch.

    Args:
        image: ``[B,3,H,W]`` in [0, 1].
        embedding: ``[B,C,h,w]`` on the grid of the image's patches.
        generator: CPU generator, the only source of randomness.
        crop_probability: of cropping the batch to between half and all of the grid's rows and columns.

    Returns:
        The changed image ``[B,3,H',W']`` and embedding ``[B,C,h',w']``.
    """
    if float(torch.rand((), generator=generator)) < crop_probability:
        image, embedding = crop(image, embedding, generator)
    return change_intensity(image, generator), embedding


def crop(image: Tensor, embedding: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut one random rectangle of whole patches out of all images of the batch."""
    patch = image.shape[-1] // embedding.shape[-1]
    for axis in (-2, -1):
        cells = embedding.shape[axis]
        kept = int(torch.randint(max(1, int(SMALLEST_CROP * cells)), cells + 1, (), generator=generator))
        start = int(torch.randint(cells - kept + 1, (), generator=generator))
        embedding = embedding.narrow(axis, start, kept)
        image = image.narrow(axis, start * patch, kept * patch)
    return image, embedding


def change_intensity(image: Tensor, generator: torch.Generator) -> Tensor:
    """Small changes of brightness, contrast curve and noise, drawn per image; the result stays in [0, 1]."""

    def draw(low: float, high: float) -> Tensor:
        values = low + (high - low) * torch.rand(len(image), 1, 1, 1, generator=generator)
        return values.to(image.device)

    noise = torch.randn(len(image), 1, *image.shape[-2:], generator=generator).to(image.device)
    changed = image.clamp_min(1e-4) ** draw(0.9, 1.1) * draw(0.9, 1.1)
    return (changed + draw(0.0, 0.01) * noise).clamp(0, 1)
