"""What the metrics are called in a report, and in which order they stand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dino_uad.detector import DEFAULT_POINT, FALSE_POSITIVE_RATES
from dino_uad.metrics import FALSE_FINDINGS
from dino_uad.report.collect import Collector
from dino_uad.report.sections import MetricRow

METRICS = {
    "Pixels": {
        "pixel_auroc": ("Pixel AUROC", "area under the ROC curve of all pixels; 0.5 is chance"),
        "pixel_aupr": ("Pixel AUPR", "average precision of all pixels; chance is the share of anomalous pixels"),
        "pixel_f1_max": ("Pixel F1, largest", "at the threshold that is best for the test set: an upper bound"),
        "pixel_aupro": ("Pixel AUPRO", "overlap per region, false positive rates up to 0.3"),
    }
    | {
        f"pixel_dice_fpr{100 * rate:g}{suffix}": (
            f"Dice at {100 * rate:g}% FPR{name}",
            f"{how}, threshold from normal images",
        )
        for rate in FALSE_POSITIVE_RATES
        for suffix, name, how in (("", "", "all pixels"), ("_per_image", ", per image", "mean of the anomalous images"))
    },
    "Images": {
        "image_auroc": ("Image AUROC", "normal against anomalous images"),
        "image_aupr": ("Image AUPR", "average precision of the images"),
        "image_f1_max": ("Image F1, largest", "at the threshold that is best for the test set: an upper bound"),
    },
    "Lesions": {
        "froc": ("Lesions found, mean (FROC)", "over 1/4, 1/2, 1, 2, 4 and 8 false findings a scan"),
    }
    | {
        f"lesion_sensitivity_at_{rate:g}": (
            f"Lesions found at {rate:g}",
            "share of all lesions, with so many false findings a scan",
        )
        for rate in FALSE_FINDINGS
    }
    | {
        "lesion_sensitivity": ("Lesions found, calibrated", f"at the threshold of {DEFAULT_POINT}"),
        "false_findings_per_normal_scan": ("False findings a normal scan", "at that threshold"),
    },
    "Label maps": {
        "label_lesion_scans": ("Scans with their lesion marked", f"at the threshold of {DEFAULT_POINT}"),
        "label_empty_normal": ("Normal images with nothing marked", "at that threshold; slices count one by one"),
        "label_dice": ("Dice of findings", "all voxels, at that threshold"),
        "label_dice_per_scan": ("Dice of findings, per scan", "mean of the scans with a lesion"),
    }
    | {
        f"label_dice_grow{100 * rate:g}{suffix}": (f"Dice of findings grown to {100 * rate:g}%{name}", how)
        for rate in FALSE_POSITIVE_RATES
        for suffix, name, how in (
            ("", "", "all voxels"),
            ("_per_scan", ", per scan", "mean of the scans with a lesion"),
        )
    },
}
OTHERS = "Others"
"""Where metrics stand that a bundle adds."""
FEW_GROUPS = 20
HEADLINES = ("pixel_auroc", "pixel_aupr", "pixel_dice_fpr5", "image_auroc")


def metric_rows(metrics: Mapping[str, float]) -> tuple[dict[str, list[MetricRow]], list[MetricRow]]:
    """Every scalar metric with its interval, in a fixed order: those with a value under what they count; the others."""
    values = {name: float(value) for name, value in metrics.items() if np.isscalar(value)}
    bounds = {name for name in values if name.endswith(("_low", "_high"))}
    ours = {name for group in METRICS.values() for name in group}
    others = {name: (name, "") for name in sorted(set(values) - ours - bounds)}

    def number(name: str) -> float | None:
        value = values.get(name, math.nan)
        return None if math.isnan(value) else value

    known: dict[str, list[MetricRow]] = {}
    unknown: list[MetricRow] = []
    for title, group in (METRICS | {OTHERS: others}).items():
        for name, (label, what) in group.items():
            if name in values:
                row = MetricRow(name, label, what, number(name), number(f"{name}_low"), number(f"{name}_high"))
                (unknown if row.value is None else known.setdefault(title, [])).append(row)
    return known, unknown


def interval_note(groups: int, known: bool) -> str:
    """How the intervals were made, and what not to take them for; empty where there are none, ``known`` or not.

    Coverage was simulated, of nominal 95 % intervals of the image AUROC: 85, 88, 90 and 94 % with 10, 15, 34 and 100
    patients (of 8, 8, 8 and 1 slices).
    """
    if not known:
        return ""
    note = f"Intervals: bootstrap over the {groups:,} groups (patients, or images where names do not tell)."
    if groups < FEW_GROUPS:
        note += (
            " Of so few they are too narrow: in simulations, 95% intervals of 10 to 15 patients held the true value in "
            "85 to 88 of 100 cases."
        )
    return note


def why_unknown(rows: Sequence[MetricRow], collector: Collector) -> str:
    """One sentence on the metrics without a value: what the test images lack."""
    if not rows:
        return ""
    anomalous = [row for row in collector.rows if row.anomalous]
    if not anomalous:
        reason = "no test image is anomalous"
    elif len(anomalous) == len(collector.rows):
        reason = "no test image is normal"
    elif not any(row.has_mask for row in anomalous):
        reason = "no anomalous test image has a mask, which pixels and lesions are compared with"
    else:
        reason = "the test images do not hold what they compare"
    return f"Left out, because {reason}: {', '.join(row.label for row in rows)}."
