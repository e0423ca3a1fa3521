"""Whole fits to many pictures, as ``python -m monai.bundle run`` makes them: reading, embedding, fit, calibration."""

from __future__ import annotations

import math
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from PIL import Image

from dino_uad.bench.bundle_heads import METHODS
from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bench.synthetic import head_slices
from dino_uad.bundle_run import configured, run_steps
from dino_uad.measure import synchronize

ARCH = "dinov2_vits14"  # speed does not depend on the weights, so random ones do
VALID = 100  # pictures, at most


def large_fit(settings: Settings) -> Row:
    """1 500 pictures of 448 px with the settings of the bundles; the aim is for five times as many on one H100."""
    count, side = settings.size((1500, 448), (24, 56))
    row = Row("large_fit", "Whole fits to many pictures", {"pictures": count, "pixels": side, "arch": ARCH}, settings)
    at_most = 120 if settings.device.type == "cuda" else None
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder) / "data", count, side)
        for method in ("dpmm", "spatial_ar"):
            name = METHODS[method]
            fitted = _fit(method, Path(folder), side, settings)
            if method == "dpmm":  # the other's are in the cache
                row.figure("pictures read and embedded", (count + min(VALID, count)) / fitted.embedding_seconds, "/s")
            row.figure(f"{name}, from the first step to the model file", fitted.fit_seconds, "s")
            row.figure(
                f"{name}, five times that, for {5 * count} pictures", 5 * fitted.fit_seconds, "s", at_most=at_most
            )
            row.check(f"{name}, pictures that were not fitted to", count - fitted.slices, 0)
            row.check(f"{name}, log-likelihood not finite", not math.isfinite(fitted.log_likelihood), 0)
    row.notes.append("The backbone has random weights and runs in bfloat16; all else is as in the bundles.")
    return row


def draw_pictures(folder: Path, count: int, side: int) -> None:
    """PNG files of a generated head with noise, no two alike, for training and validation."""
    drawn = head_slices(100, side)

    def draw(number: int) -> None:
        noise = torch.randn(side, side, generator=torch.Generator().manual_seed(number))
        picture = (drawn[number % len(drawn), 0] + 0.02 * noise).clamp(0, 1).mul(255).byte()
        split = "train" if number < count else "valid"
        Image.fromarray(picture.numpy()).save(folder / split / f"{number}.png", compress_level=1)

    for split in ("train", "valid"):
        (folder / split).mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(draw, range(count + min(VALID, count))))


class _Fitted(NamedTuple):
    embedding_seconds: float  # until all embeddings were in the cache
    fit_seconds: float  # from there to the model file
    slices: int
    log_likelihood: float


def training(method: str, folder: Path, side: int, settings: Settings, **overrides: Any) -> ConfigParser:
    """The bundle's ``train.json`` for the pictures in ``folder / "data"``, with a backbone of random weights."""
    backbone = {"arch": ARCH, "weights": "random", "precision": "bfloat16"}
    overrides |= {f"network_def#backbone#{key}": value for key, value in backbone.items()}
    overrides["device"] = f"$torch.device('{settings.device}')"
    return configured(method, "train", folder / method, folder / "data", side, **overrides)


def _fit(method: str, folder: Path, side: int, settings: Settings) -> _Fitted:
    """The training that the bundle's configs describe."""
    set_determinism(0)
    quick = {"spatial_ar": {"max_steps": 3}, "dpmm": {"max_epochs": 2}}[method]
    parser = training(method, folder, side, settings, **(quick if settings.quick else {}))
    start = time.perf_counter()
    slices, _ = (len(parser.get_parsed_content(f"{part}#dataset")) for part in ("train", "validate"))
    embedded = time.perf_counter()
    run_steps(parser)
    synchronize(settings.device)
    metrics = parser.get_parsed_content("validate#evaluator").state.metrics
    return _Fitted(embedded - start, time.perf_counter() - embedded, slices, metrics["val_log_likelihood"])
