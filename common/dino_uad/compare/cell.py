"""One cell of a comparison: fit one method on one backbone with one seed, and measure it on the test images."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from dino_uad.bundle_run import find_bundle
from dino_uad.compare.spec import BackboneSpec, Method
from dino_uad.compare.testset import TestSet
from dino_uad.detector import AnomalyDetector
from dino_uad.files import atomic_path
from dino_uad.heads import MeanDistanceHead
from dino_uad.measure import peak_extra_megabytes, synchronize
from dino_uad.metrics import AUPRO, DiceAtThresholds, ImageCurves, ImageHistograms, PixelCurves, images, pixels


@dataclass(frozen=True)
class Settings:
    """What all cells of a comparison share."""

    dataset_dir: str
    out: Path
    cache_dir: str
    image_size: int
    device: str
    epochs: int | None = None


def parse_train(method: Method, backbone: BackboneSpec, seed: int, settings: Settings, folder: Path) -> ConfigParser:
    """The bundle's ``train.json`` with the settings of a cell put in."""
    baseline = method.bundle in ("mean_distance", "intensity")
    root = find_bundle("dpmm" if baseline else method.bundle)
    parser = ConfigParser()
    parser.read_config(root / "configs" / "train.json")
    parser.update(
        {
            "bundle_root": str(root),
            "dataset_dir": settings.dataset_dir,
            "ckpt_dir": str(folder),
            "output_dir": str(folder),
            "cache_dir": settings.cache_dir,
            "image_size": [settings.image_size, settings.image_size],
            "device": f"$torch.device('{settings.device}')",
            "seed": seed,
        }
    )
    for key, value in backbone.config().items():
        parser[f"network_def#backbone#{key}"] = value
    if baseline:
        target = f"{MeanDistanceHead.__module__}.{MeanDistanceHead.__qualname__}"
        parser["network_def#head"] = {"_target_": target, "embed_dim": "$@network_def#backbone.embed_dim"}
        parser["max_epochs"] = 1
    for key, value in method.settings.items():
        parser[f"network_def#head#{key}"] = value
    if settings.epochs is not None:
        parser["max_epochs"] = min(settings.epochs, parser["max_epochs"])
    return parser


def run_cell(method: Method, backbone: BackboneSpec, seed: int, settings: Settings, test: TestSet) -> dict[str, Any]:
    """Fit and measure; the result is also ``cell.json`` in the cell's folder, next to ``histograms.pt``."""
    folder = settings.out / "cells" / f"{method.name} {backbone.name} {seed}".replace(" ", "_").replace("/", "_")
    if (folder / "cell.json").is_file():
        return json.loads((folder / "cell.json").read_text())
    parser = parse_train(method, backbone, seed, settings, folder)
    network: AnomalyDetector = parser.get_parsed_content("network")
    parser.get_parsed_content("train#trainer")
    len(parser.get_parsed_content("train#dataset")), len(parser.get_parsed_content("validate#dataset"))
    seconds = []

    def fit() -> None:
        start = time.perf_counter()
        for step in range(len(parser["run"])):
            parser.get_parsed_content(f"run#{step}")
        seconds.append(time.perf_counter() - start)

    peak = peak_extra_megabytes(fit, torch.device(settings.device), period=0.02)
    if method.bundle == "intensity":
        network.thresholds.fill_(torch.nan)
    embeddings = test.embeddings(parser)
    result = measure(network, test, embeddings, settings.device, raw=method.bundle == "intensity", folder=folder)
    result |= {
        "method": method.name,
        "backbone": "-" if method.bundle == "intensity" else backbone.name,
        "seed": seed,
        "fit_seconds": seconds[0],
        "model_mb": sum(value.numel() * value.element_size() for value in network.state_dict().values()) / 1e6,
        "peak_memory_mb": peak,
    }
    if hasattr(network.head, "n_active"):
        result["active_components"] = int(network.head.n_active)
    with atomic_path(folder / "cell.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2))
    return result


@torch.inference_mode()
def measure(
    network: AnomalyDetector, test: TestSet, embeddings: Any, device: str, raw: bool, folder: Path
) -> dict[str, Any]:
    """All metrics of a fitted detector on the cached test embeddings, and the head's seconds per image."""
    tally = _Tally(None if raw else network.thresholds, device)
    seconds = []
    network.eval()
    for position, item in enumerate(test.items):
        record = embeddings[position]
        arguments = [record[key][None].to(device) for key in ("embedding", "cls")]
        synchronize(torch.device(device))
        start = time.perf_counter()
        patch_scores = network.head.score(*arguments)
        anomaly_map = network.upsample(patch_scores)
        synchronize(torch.device(device))
        seconds.append(time.perf_counter() - start)
        image_score = network.head.image_score(patch_scores)[0]
        if raw:
            anomaly_map = item["image"].float().amax(dim=0)[None, None].to(device)
            image_score = anomaly_map.flatten().topk(max(1, anomaly_map.numel() // 100)).values.mean()
        tally.add({**item, "pred": test.at_label_size(anomaly_map[0], position), "image_score": image_score})
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tally.histograms.counts().cpu(), folder / "histograms.pt")
    return {
        "metrics": tally.compute(),
        "head_seconds": float(torch.tensor(seconds).median()),
        "histograms": str(folder / "histograms.pt"),
    }


class _Tally:
    """The metrics of a comparison, fed image by image; Dice only where there are thresholds."""

    def __init__(self, thresholds: Tensor | None, device: str) -> None:
        self._device = device
        self._images = ImageCurves()
        self._pixels = [PixelCurves(device=device), AUPRO(device=device)]
        if thresholds is not None:
            self._pixels.append(DiceAtThresholds(thresholds, device=device))
        self.histograms = ImageHistograms(device=device)

    def add(self, item: Mapping[str, Any]) -> None:
        known = pixels([item])
        for metric in self._pixels:
            metric.update(known)
        self._images.update(images([item]))
        for scores, mask in zip(*known, strict=True):
            self.histograms.append(scores, mask.to(self._device) > 0)

    def compute(self) -> dict[str, float]:
        curves, regions, *dice = (metric.compute() for metric in self._pixels)
        metrics = {**curves, "pixel_aupro": regions, **self._images.compute()}
        for values in dice:
            metrics |= values
        return {key: float(value) for key, value in metrics.items()}
