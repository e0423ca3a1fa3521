"""The test images of a comparison, loaded once, and their embeddings, computed once per backbone."""

from __future__ import annotations

import time
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from dino_uad.backbones import DinoBackbone
from dino_uad.data import collate_slices
from dino_uad.embeddings import EmbeddingDataset
from dino_uad.engines import resize_like


class TestSet:
    """Labelled test images with their masks.

    Args:
        parser: a bundle's ``train.json`` merged with its ``evaluate.json``, for the data list and the transforms.
    """

    __test__ = False  # the name is a test set's, not a test's

    def __init__(self, parser: ConfigParser) -> None:
        self.data = parser.get_parsed_content("test_data")
        self.transform = parser.get_parsed_content("validate#preprocessing")
        self.items: list[dict[str, Any]] = []
        for entry in self.data:
            batch = collate_slices([self.transform(dict(entry))])
            for i in range(len(batch["image"])):
                item = {key: values[i] for key, values in batch.items()}
                self.items.append({**item, "image": (item["image"] * 255).to(torch.uint8)})

    def embeddings(self, parser: ConfigParser) -> EmbeddingDataset:
        """Cached embeddings of the test images for the backbone of a cell's config, in the order of ``items``."""
        dataset = EmbeddingDataset(
            self.data,
            self.transform,
            parser.get_parsed_content("network_def#backbone"),
            cache_dir=parser.get_parsed_content("cache_dir"),
            device=parser.get_parsed_content("device"),
        )
        if len(dataset) != len(self.items):
            raise RuntimeError(f"{len(dataset)} test embeddings for {len(self.items)} test images; remove the cache")
        return dataset

    def at_label_size(self, anomaly_map: Tensor, position: int) -> Tensor:
        """Bring a map ``[1,H,W]`` to the size of an image's label."""
        return resize_like(anomaly_map, self.items[position]["label"])


@torch.inference_mode()
def backbone_seconds(backbone: DinoBackbone, image_size: int, device: str, repeats: int = 5) -> float:
    """Median seconds of one image through the backbone, batch 1, after one warm-up."""
    image = torch.rand(1, 1, image_size, image_size, device=device)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        backbone(image)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(torch.tensor(times[1:]).median())
