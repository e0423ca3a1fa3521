"""A comparison as Markdown, CSV and a plot of accuracy against time."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from dino_uad.compare import false_positives, intervals
from dino_uad.files import as_utf8, atomic_path
from dino_uad.transforms import MARK

METRICS = {
    "pixel_auroc": "pixel AUROC",
    "pixel_aupr": "pixel AUPR",
    "pixel_aupro": "AUPRO",
    "pixel_dice_fpr10": "Dice 10 %",
    "pixel_dice_fpr5": "Dice 5 %",
    "pixel_dice_fpr1": "Dice 1 %",
    "pixel_dice_fpr0.1": "Dice 0.1 %",
    "image_auroc": "image AUROC",
    "froc": "FROC",
    "lesion_sensitivity_at_0.1": "lesions at 0.1 false",
    "lesion_sensitivity_at_1": "lesions at 1 false",
    "label_dice_grow0.5": "Dice, label maps",
    "label_lesion_scans": "scans marked",
}
COSTS = {
    "fit_seconds": ("fit s", 1),
    "head_ms": ("head ms", 1),
    "backbone_ms": ("backbone ms", 1),
    "model_mb": ("model MB", 1),
    "peak_memory_mb": ("peak MB", 0),
    "active_components": ("components", 0),
    "log_likelihood": ("log-likelihood", 1),
}


def summarise(cells: Sequence[Mapping[str, Any]], backbone_times: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per method and backbone: mean and standard deviation over seeds of the metrics, mean of the costs.

    Times per image are split into the backbone's, shared by all methods, and the head's. Fit time excludes the
    backbone: embeddings are cached.
    """
    rows = []
    for (method, backbone), group in groupby(cells, key=lambda cell: (cell["method"], cell["backbone"])):
        members = list(group)
        row: dict[str, Any] = {"method": method, "backbone": backbone, "seeds": len(members)}
        for key in METRICS:
            values = [cell["metrics"][key] for cell in members if key in cell["metrics"]]
            if values:
                row[key] = statistics.fmean(values)
                row[f"{key}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        means = {
            key: [cell[key] for cell in members if not math.isnan(cell.get(key, math.nan))]
            for key in COSTS
            if key not in ("head_ms", "backbone_ms")
        }
        row |= {key: statistics.fmean(values) for key, values in means.items() if values}
        row["head_ms"] = 1e3 * statistics.fmean(cell["head_seconds"] for cell in members)
        row["backbone_ms"] = 1e3 * backbone_times.get(backbone, 0.0)
        row |= intervals.of_first_seed(members) | false_positives.averaged(members)
        rows.append(row)
    return rows


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """All numbers, one line a row."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_markdown(result: Mapping[str, Any], path: Path) -> None:
    """The table for people, and the paired tests below it."""
    facts, rows = result["facts"], result["rows"]
    lines = [
        f"# Comparison on {facts['dataset']}",
        "",
        f"{facts['images']} test images, {facts['image_size']} px, seeds {facts['seeds']}, {facts['device']}. "
        "Mean ± standard deviation over seeds; pixel metrics at the labels' size over all pixels; Dice at the "
        "threshold for that false positive rate on normal validation pixels; label maps: inference's, and the "
        "share of scans with a lesion in which they mark it; fit time without the backbone; "
        "peak memory of the fit beyond what was held before it; log-likelihood of normal validation images, "
        "nats a patch, which chose the epoch.",
        "",
    ]
    metrics = {key: title for key, title in METRICS.items() if _known(rows, key)}
    costs = {key: value for key, value in COSTS.items() if any(key in row for row in rows)}
    lines += _table(
        ["method", "backbone", *metrics.values(), *(title for title, _ in costs.values())],
        [
            [row["method"], row["backbone"], *(_metric(row, key) for key in metrics)]
            + [f"{row[key]:.{digits}f}" if key in row else "" for key, (_, digits) in costs.items()]
            for row in rows
        ],
    )
    header, bounds = intervals.table(rows, METRICS)
    if bounds:
        lines += ["", f"## 95 % intervals (patients drawn again 1000 times; seed {facts['seeds'][0]})", ""]
        lines += _table(header, bounds)
    header, marked = false_positives.table(rows)
    if marked:
        lines += [
            "",
            "## Marked on normal test images, % (foreground, its worst image / all pixels, their worst image)",
            "",
        ]
        lines += _table(header, marked)
    lines += _paired_tests(result["paired_tests"])
    with atomic_path(path) as temporary:
        temporary.write_text(as_utf8("\n".join(lines) + "\n"), encoding="utf-8")


def _paired_tests(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The section on those tests whose AUROC is known; no lines without any."""
    tests = [test for test in found if not math.isnan(test["auroc_difference"])]
    if not tests:
        return []
    names = ["backbone", "seed", "first", "second", "AUROC difference", "p", "Holm", "AUPR difference", "p", "Holm"]
    rows = [[test["backbone"], str(test["seed"]), test["first"], test["second"], *_tested(test)] for test in tests]
    return [
        "",
        "## Paired permutation tests (two-sided; difference is first minus second)",
        "",
        f"Patients (or images, where names do not tell) are swapped whole, {tests[0]['patients']} of them; Holm: "
        "adjusted for all these tests of one backbone and seed.",
        "",
        *_table(names, rows),
    ]


def write_plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Pixel AUPR, or image AUROC without masks, against milliseconds an image, one marker per backbone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = "pixel_aupr" if _known(rows, "pixel_aupr") else "image_auroc"
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    backbones = [name for name in dict.fromkeys(row["backbone"] for row in rows) if name != "-"]
    for marker, backbone in zip("osD^vP*X", backbones, strict=False):
        chosen = [row for row in rows if row["backbone"] == backbone]
        times = [row["head_ms"] + row["backbone_ms"] for row in chosen]
        axes.scatter(times, [row[shown] for row in chosen], marker=marker, label=backbone, s=50)
        for row, x in zip(chosen, times, strict=True):
            axes.annotate(row["method"], (x, row[shown]), xytext=(5, 3), textcoords="offset points", fontsize=8)
    axes.set(xlabel="time per image [ms], backbone and head", ylabel=METRICS[shown], xscale="log")
    for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Software": MARK})


def _known(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether one row has it: without masks nothing about pixels is defined."""
    return any(not math.isnan(row.get(key, math.nan)) for row in rows)


def _metric(row: Mapping[str, Any], key: str) -> str:
    if not _known([row], key):
        return ""
    spread = row[f"{key}_std"]
    return f"{row[key]:.4f}" + (f" ± {spread:.4f}" if spread is not None else "")


def _tested(test: Mapping[str, Any]) -> list[str]:
    """Difference, p-value and adjusted p-value of either metric."""
    return [
        text
        for metric in ("auroc", "aupr")
        for text in (
            f"{test[f'{metric}_difference']:+.4f}",
            *(f"{test[key]:.4f}" for key in (f"{metric}_p", f"{metric}_p_holm")),
        )
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]]
