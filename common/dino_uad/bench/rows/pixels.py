"""Streaming pixel metrics on more pixels than fit into memory."""

from __future__ import annotations

import torch
from torch import Tensor

from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.metrics import PixelCurves


def pixel_curves(settings: Settings) -> Row:
    """AUROC, average precision and F1 over 2·10⁸ pixels, in batches of 8 maps."""
    side, total = settings.size((448, 200_000_000), (64, 200_000))
    row = Row(
        "pixels", "Pixel AUROC, AUPR and F1, update and compute", {"pixels": total, "image": f"{side} px"}, settings
    )
    batches = [_batch(side, seed, settings) for seed in range(4)]
    updates = -(-total // batches[0][0].numel())

    def see_all() -> PixelCurves:
        metric = PixelCurves(device=settings.device)
        for update in range(updates):
            metric.update(batches[update % len(batches)])
        return metric

    row.time({"all pixels": lambda: see_all().compute()})
    pixels = updates * batches[0][0].numel()
    row.figure("pixels per second", pixels / row.timings["all pixels"].wall_median / 1e6, "million", at_least=20)
    row.figure("pixels per second of processor time", pixels / row.timings["all pixels"].cpu_median / 1e6, "million")
    row.memory("updates", see_all, at_most=100)
    seen = see_all()
    row.memory("computing the curves", seen.compute)
    metric = PixelCurves(device=settings.device)
    metric.update(batches[0])
    found = metric.compute()
    for name, exact in zip(("pixel_auroc", "pixel_aupr"), sorted_curves(*batches[0]), strict=True):
        row.check(f"{name} against sorting the pixels of a batch", abs(found[name] - exact), 1e-4)
    return row


def sorted_curves(scores: Tensor, mask: Tensor) -> tuple[float, float]:
    """AUROC and average precision by sorting distinct scores, in float64."""
    positive = mask.flatten()[scores.flatten().argsort(descending=True)].double()
    hits, misses = positive.cumsum(0), (1 - positive).cumsum(0)
    area = (hits * (1 - positive)).sum() / (hits[-1] * misses[-1])
    return float(area), float((positive * hits / (hits + misses)).sum() / hits[-1])


def _batch(side: int, seed: int, settings: Settings) -> tuple[Tensor, Tensor]:
    """Maps and masks ``[8,1,side,side]``; half of the images have an anomaly, which scores a little higher."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(8, 1, side, side, dtype=torch.bool)
    mask[::2, :, side // 4 : side // 3, side // 4 : side // 2] = True
    scores = torch.rand(mask.shape, generator=generator).square_() * (1 + seed) + 0.3 * mask
    return scores.to(settings.device), mask.to(settings.device)
