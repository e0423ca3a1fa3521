"""How far a number may be off because other patients might have been the test's: what seeds do not tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = ("pixel_auroc", "pixel_aupr", "pixel_aupro", "image_auroc")
ENDS = ("low", "high")


def of_first_seed(cells: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``<metric>_low`` and ``<metric>_high`` of a method's first cell, where evaluation gave them."""
    found = cells[0]["metrics"]
    keys = (f"{metric}_{end}" for metric in SHOWN for end in ENDS)
    return {key: found[key] for key in keys if key in found}


def table(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table of intervals; empty where no method has one.

    Args:
        rows: of the comparison.
        titles: of the metrics.
    """
    shown = [metric for metric in SHOWN if any(_known(row, metric) for row in rows)]
    lines = [[row["method"], row["backbone"], *(_interval(row, metric) for metric in shown)] for row in rows]
    lines = [line for line in lines if any(line[2:])]
    return ["method", "backbone", *(titles[metric] for metric in shown)], lines


def _known(row: Mapping[str, Any], metric: str) -> bool:
    return all(math.isfinite(row.get(f"{metric}_{end}", math.nan)) for end in ENDS)


def _interval(row: Mapping[str, Any], metric: str) -> str:
    return f"{row[f'{metric}_low']:.3f} to {row[f'{metric}_high']:.3f}" if _known(row, metric) else ""
