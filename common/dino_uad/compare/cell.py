"""One cell of a comparison: fit one method on one backbone with one seed, evaluate it, and say what it cost."""

from __future__ import annotations

import math
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from torch import nn

from dino_uad.compare.config import Cell, Settings
from dino_uad.compare.false_positives import FalsePositives
from dino_uad.compare.replay import ReplayedBackbone
from dino_uad.compare.spec import INTENSITY, NO_BACKBONE
from dino_uad.compare.stored import LEVELS, is_finished, read_cell, write_cell
from dino_uad.embeddings import EmbeddingDataset
from dino_uad.handlers import FitCheckpoint
from dino_uad.measure import peak_extra_megabytes
from dino_uad.metrics import GroupLevels, grouped_pixels


def run_cell(cell: Cell, settings: Settings, key: str) -> dict[str, Any]:
    """Fit and evaluate; the result is also ``cell.json`` in the cell's folder, next to ``levels.pt``.

    Args:
        cell: what to run.
        settings: of the comparison.
        key: of what decides the numbers; a finished cell of the same key is not run again.
    """
    folder = settings.out / "cells" / f"{cell.name}_{key}"
    if is_finished(folder):
        return read_cell(folder)
    fitted = cell.method.bundle != INTENSITY
    costs = fit(cell, settings, folder) if fitted else {"fit_seconds": 0.0, "peak_memory_mb": 0.0}
    parser = cell.parser("evaluate", settings, folder)
    network: nn.Module = parser.get_parsed_content("network")
    result = {
        "method": cell.method.name,
        "backbone": "-" if cell.method.bundle in NO_BACKBONE else cell.backbone.name,
        "seed": cell.seed,
        **costs,
        "model_mb": sum(value.numel() * value.element_size() for value in network.state_dict().values()) / 1e6,
        **evaluate(parser, network, folder),
    }
    if hasattr(network, "head") and hasattr(network.head, "n_active"):
        result["active_components"] = int(network.head.n_active)
    write_cell(result, folder)
    return read_cell(folder)


def fit(cell: Cell, settings: Settings, folder: Path) -> dict[str, float]:
    """Run the bundle's training; its time and memory are without the backbone's, whose embeddings are made before.

    A fit that goes on where it was stopped has neither.

    Of a method that iterates also the log-likelihood of normal validation images by which its epoch was chosen, the
    one number by which settings can be chosen without anything anomalous.
    """
    set_determinism(cell.seed)
    parser = cell.parser("train", settings, folder)
    parser.get_parsed_content("train#trainer")
    handlers = parser.get_parsed_content("train#handlers")
    (checkpoint,) = [part for part in handlers if isinstance(part, FitCheckpoint)]
    len(parser.get_parsed_content("train#dataset")), len(parser.get_parsed_content("validate#dataset"))
    seconds = []

    def run() -> None:
        start = time.perf_counter()
        parser.get_parsed_content("run")
        seconds.append(time.perf_counter() - start)

    peak = peak_extra_megabytes(run, torch.device(settings.device), period=0.02)
    # What is left of a fit that was stopped says nothing about the whole.
    whole = not checkpoint.resumed_after
    costs = {"fit_seconds": seconds[0] if whole else math.nan, "peak_memory_mb": peak if whole else math.nan}
    if not parser.get_parsed_content("network").head.single_pass:
        costs["log_likelihood"] = checkpoint.best["metric"]
    return costs


def evaluate(parser: ConfigParser, network: nn.Module, folder: Path) -> dict[str, Any]:
    """Run the bundle's evaluation, with cached embeddings in place of the backbone's."""
    evaluator = parser.get_parsed_content("validate#evaluator")
    if hasattr(network, "backbone"):
        embeddings = EmbeddingDataset(
            parser.get_parsed_content("test_data"),
            parser.get_parsed_content("validate#preprocessing"),
            network.backbone,
            cache_dir=parser.get_parsed_content("cache_dir"),
            device=parser.get_parsed_content("device"),
        )
        embeddings.build()
        network.backbone = ReplayedBackbone(network.backbone, embeddings)
        network.backbone.attach(evaluator)
    levels, seconds = GroupLevels(device=evaluator.state.device), []
    false_positives = FalsePositives(network) if hasattr(network, "thresholds") else None

    def keep(engine: Engine) -> None:
        seconds.extend(item["seconds"] for item in engine.state.output)
        for scores, mask, group in zip(*grouped_pixels(engine.state.output), strict=True):
            levels.add(group, scores, mask > 0)
        if false_positives is not None:
            false_positives.add(engine.state.output)

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, keep)
    evaluator.run()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(levels.counts().cpu(), folder / LEVELS)
    return {
        "metrics": {name: float(value) for name, value in evaluator.state.metrics.items()},
        "images": len(seconds),
        "head_seconds": median(seconds),
        "false_positives": false_positives.result() if false_positives is not None else {},
    }
