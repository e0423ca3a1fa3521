"""How much of normal test images is marked, against the rates that thresholds were set for on validation images."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dino_uad.detector import FALSE_POSITIVE_RATES, AnomalyDetector
from dino_uad.engines import resize_like
from dino_uad.metrics import is_anomalous

KINDS = ("foreground", "worst", "pixels", "worst pixels")
"""Shares marked: of the foreground of all images and of the worst one; as published, of all pixels and of the worst."""


class FalsePositives:
    """Counts, over an evaluation, the pixels of normal images that reach each threshold.

    Args:
        network: whose thresholds. Those of the foreground are measured there, those of all pixels on all.
    """

    def __init__(self, network: AnomalyDetector) -> None:
        self.network = network
        self.counts: list[Tensor] = []

    def add(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Take in what the evaluator says of some images."""
        for item in items:
            if is_anomalous(item):
                continue
            inside = self.network.inside(item["foreground"][None] > 0).float()[0]
            inside = resize_like(inside, item["mask"]) > 0.5
            pred = item["pred"]
            marked = [
                torch.stack([(part >= threshold).sum() for threshold in thresholds.to(pred)])
                for part, thresholds in ((pred[inside], self.network.thresholds), (pred, self.network.pixel_thresholds))
            ]
            sizes = torch.stack([inside.sum(), torch.tensor(pred.numel()).to(inside.device)])
            self.counts.append(torch.cat([sizes, *marked]).double().cpu())

    def result(self) -> dict[str, float]:
        """Shares by :func:`name` of rate and kind; none where there was no normal image."""
        if not self.counts:
            return {}
        counts, n = torch.stack(self.counts), len(FALSE_POSITIVE_RATES)
        inside, everywhere, marked, marked_everywhere = counts.split([1, 1, n, n], dim=1)
        shares = {
            "foreground": marked.sum(dim=0) / inside.sum(),
            "worst": (marked / inside.clamp_min(1)).amax(dim=0),
            "pixels": marked_everywhere.sum(dim=0) / everywhere.sum(),
            "worst pixels": (marked_everywhere / everywhere).amax(dim=0),
        }
        return {
            name(rate, kind): float(shares[kind][i]) for i, rate in enumerate(FALSE_POSITIVE_RATES) for kind in KINDS
        }


def name(rate: float, kind: str) -> str:
    """The key of a share: ``marked 5 % foreground``."""
    return f"marked {100 * rate:g} % {kind}"


def averaged(cells: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over cells that differ in their seed."""
    found = [cell["false_positives"] for cell in cells if cell.get("false_positives")]
    return {key: statistics.fmean(one[key] for one in found) for key in (found[0] if found else ())}


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: a row a method, a column a rate; a cell has the shares of :data:`KINDS` in %, two by two."""
    cells = [
        [row["method"], row["backbone"]]
        + [
            "{:.2f}, {:.1f} / {:.2f}, {:.1f}".format(*(100 * row[name(rate, kind)] for kind in KINDS))
            for rate in FALSE_POSITIVE_RATES
        ]
        for row in rows
        if name(FALSE_POSITIVE_RATES[0], "pixels") in row
    ]
    return ["method", "backbone", *(f"{100 * rate:g} %" for rate in FALSE_POSITIVE_RATES)], cells
