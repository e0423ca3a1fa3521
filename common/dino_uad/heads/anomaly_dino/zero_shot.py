"""Batched zero-shot AnomalyDINO (WACV 2025, appendix D): test images score each other, without any reference."""

from __future__ import annotations

import torch
from torch import Tensor

from dino_uad.heads.anomaly_dino.nearest import encode_rows, nearest_neighbours


def batched_zero_shot_scores(embeddings: Tensor, quantile: float = 0.001) -> Tensor:
    """Score every patch against the patches of all other images of the batch.

    Normal patches have many near neighbours among the others, anomalous ones few. A single neighbour would clear an
    anomaly that occurs in two images, so the score is the mean over the ``quantile`` nearest patches.

    The published code averages the distances strictly below the quantile, one patch fewer, and divides by zero for
    small batches; here at least one is averaged.

    Args:
        embeddings: ``[N,C,h,w]`` of ``N >= 2`` images, mostly normal.
        quantile: share of the other images' patches to average over.

    Returns:
        ``[N,1,h,w]`` float32 cosine distances.
    """
    if len(embeddings) < 2:
        raise ValueError(f"batched zero-shot compares at least 2 images with each other, found {len(embeddings)}")
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must be in (0, 1], found {quantile}")
    bank, patches = encode_rows(embeddings.movedim(1, -1).flatten(0, 2)), embeddings.shape[-2:].numel()
    scores = []
    for i, image in enumerate(embeddings):
        others = torch.cat([bank[: i * patches], bank[(i + 1) * patches :]])
        k = max(1, int(quantile * len(others)))
        distance, _ = nearest_neighbours(image.flatten(1).T, others, k)
        scores.append(distance.mean(dim=1).view(1, *image.shape[1:]))
    return torch.stack(scores)
