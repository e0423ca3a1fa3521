"""The table of common/docs/results.md by share of the image baseline, from the models that a comparison left.

The share does not change what a head learns, so each model of ``compare`` is scored once and calibrated anew for every
share. Needs the data set and ``--image_size`` of that comparison; embeddings come from its cache.

    python -m dino_uad compare data --image_size 224 --out runs/compare
    python common/recipes/baseline_share.py runs/compare data --image_size 224
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fire
import torch
from torch import Tensor

from dino_uad.compare.config import Cell, Settings
from dino_uad.compare.spec import BASELINES, BackboneSpec, Method
from dino_uad.detector import AnomalyDetector
from dino_uad.embeddings import EmbeddingDataset, EmbeddingLoader, flattened
from dino_uad.engines import resize_like
from dino_uad.handlers import calibrate, score
from dino_uad.metrics import ImageCurves, PixelCurves

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, "auto")


@torch.inference_mode()
def measure(out: str, dataset_dir: str, image_size: int = 448, backbone: str = "dinov2_vits14", seed: int = 0) -> None:
    """Print a row for each method and share: the share, pixel AUROC and AUPR where there are masks, image AUROC.

    Args:
        out: folder of the comparison.
        dataset_dir: its data set.
        image_size: its side of the input in pixels.
        backbone: as it was given there.
        seed: of the fits.
    """
    settings = Settings(dataset_dir, Path(out), str(Path(out) / "cache"), image_size, "cpu")
    print("| method | baseline | pixel AUROC | pixel AUPR | image AUROC |\n| --- | --- | --- | --- | --- |")
    for path in sorted(Path(out).glob("cells/*/cell.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["method"] in BASELINES or said["seed"] != seed:
            continue
        cell = Cell(Method.parse(said["method"].replace(" ", ":")), BackboneSpec.parse(backbone), seed)
        if said["backbone"] == cell.backbone.name:
            for row in rows(cell, settings, path.parent):
                print(f"| {said['method']} | " + " | ".join(row) + " |", flush=True)


def rows(cell: Cell, settings: Settings, folder: Path) -> Iterator[list[str]]:
    """The cells of a row for each share."""
    evaluation, training = (cell.parser(workflow, settings, folder) for workflow in ("evaluate", "train"))
    network: AnomalyDetector = evaluation.get_parsed_content("network").eval()
    dataset = EmbeddingDataset(
        evaluation.get_parsed_content("test_data"),
        evaluation.get_parsed_content("validate#preprocessing"),
        network.backbone,
        cache_dir=settings.cache_dir,
        foreground=network.foreground,
    )
    scored = [score(network, batch, settings.device) for batch in EmbeddingLoader(dataset, batch_size=16)]
    labels, anomalous = truth(dataset)
    for share in SHARES:
        network.baseline.mode = share
        if share != "auto":
            network.baseline.share.fill_(share)
        calibrate(network, training.get_parsed_content("validate#dataloader"), settings.device)
        found = [network.assess(one["raw_scores"], one["foreground"]) for one in scored]
        images = ImageCurves()
        images.update((torch.cat([one["image_score"] for one in found]), anomalous))
        cells = ["", ""]
        if labels:
            pixels = PixelCurves()
            maps = [
                resize_like(one, mask) for one, mask in zip(torch.cat([f["pred"] for f in found]), labels, strict=True)
            ]
            pixels.update((maps, labels))
            cells = [f"{pixels.compute()[name]:.3f}" for name in ("pixel_auroc", "pixel_aupr")]
        told = f"auto: {float(network.baseline.share):.2f}" if share == "auto" else f"{share:g}"
        yield [told, *cells, f"{images.compute()['image_auroc']:.3f}"]


def truth(dataset: EmbeddingDataset) -> tuple[list[Tensor], list[int]]:
    """Masks ``[1,H,W]`` bool of the test slices, none where an anomalous image has no mask, and who is anomalous."""
    masks, anomalous, known = [], [], True
    for entry in dataset.entries:
        for item in flattened(dataset.transform(dict(entry))):
            mask: Any = torch.as_tensor(item["label"]).as_subclass(Tensor) > 0
            masks.append(mask)
            anomalous.append(int(bool(mask.any()) or not item["has_mask"]))
            known = known and item["has_mask"]
    return (masks if known else []), anomalous


if __name__ == "__main__":
    fire.Fire(measure)
