"""Batched zero-shot AnomalyDINO: no training images at all, the images of a folder judge each other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type
from torch import Tensor
from tqdm import tqdm

from dino_uad.backbones import DinoBackbone
from dino_uad.detector import upsample_scores
from dino_uad.heads.anomaly_dino import batched_zero_shot_scores
from dino_uad.inferers import occupied_slices

logger = logging.getLogger(__name__)


@torch.inference_mode()
def zero_shot(
    data: Sequence[Mapping[str, Any]],
    preprocessing: Callable,
    postprocessing: Callable,
    backbone: DinoBackbone,
    smoothing_sigma: float = 4.0,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
) -> list[dict[str, Any]]:
    """Score every image, and every occupied slice of a volume, against all others (AnomalyDINO, appendix D).

    The memory it takes is that of all images after preprocessing and of their embeddings in half precision.

    Args:
        data: dictionaries with an ``image`` path.
        preprocessing: invertible transform to ``image`` ``[C,H,W]`` or ``[C,H,W,D]`` in [0, 1].
        postprocessing: gets the item with ``pred`` of the image's spatial shape; inverts and saves.
        backbone: the frozen feature extractor.
        smoothing_sigma: of the Gaussian on a map, in pixels.
        batch_size: slices per backbone call.
        device: where backbone and search run.

    Returns:
        What ``postprocessing`` made of each item.

    Raises:
        ValueError: fewer than two slices in all.
    """
    items = [preprocessing(dict(entry)) for entry in data]
    places = [(i, z) for i, item in enumerate(items) for z in _scored(item["image"])]
    if len(places) < 2:
        raise ValueError(
            f"{len(places)} image with content found; batched zero-shot compares at least 2 with each other"
        )
    backbone = backbone.to(device)
    embeddings = []
    for start in tqdm(range(0, len(places), batch_size), desc="embedding", unit="batch"):
        images = [plane(items[i]["image"], z) for i, z in places[start : start + batch_size]]
        embeddings.append(backbone(torch.stack(images).to(device, torch.float32))[0].half().cpu())
    scores = batched_zero_shot_scores(torch.cat(embeddings).to(device)).cpu()
    results = []
    for i, item in enumerate(items):
        pred = torch.zeros((1, *item["image"].shape[1:]))
        for row, (owner, z) in enumerate(places):
            if owner == i:
                size = tuple(pred.shape[1:3])
                plane(pred, z).copy_(upsample_scores(scores[row][None], size, smoothing_sigma)[0])
        item["pred"] = convert_to_dst_type(pred, item["image"], dtype=torch.float32)[0]
        results.append(postprocessing(item))
    logger.info(f"scored {len(places)} images or slices of {len(items)} files against each other")
    return results


def _scored(image: Tensor) -> list[int | None]:
    """Indices of the slices of a volume that are scored; ``[None]`` for a picture."""
    return [None] if image.ndim == 3 else occupied_slices(image).tolist()


def plane(image: Tensor, index: int | None) -> Tensor:
    """Slice ``index`` of ``[C,H,W,D]``, or the picture ``[C,H,W]`` itself, as a plain tensor that shares memory."""
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    return plain if index is None else plain[..., index]
