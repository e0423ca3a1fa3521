"""The sections every method has: data set, curves, score histograms, cases, volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from dino_uad.detector import DRAWN, FALSE_POSITIVE_RATES
from dino_uad.metrics import tied_levels
from dino_uad.report import charts, operating_curves, overview, panels, volumes
from dino_uad.report.collect import Collector
from dino_uad.report.overview import Scale
from dino_uad.report.sections import Gallery, Picture, Section
from dino_uad.report.shown_cases import Case, best_median_worst

BINS = 60
CASES_EACH = 2
EXAMPLE_SIDE = 320
GREY_LEVELS = (
    f"Grey levels are stretched for display, white from the {panels.WHITE_PERCENTILE:g}th percentile; the network sees "
    "them as they are."
)


def threshold_names(thresholds: torch.Tensor) -> dict[str, float]:
    """Calibrated thresholds by what they are called; those that were never calibrated are left out."""
    named = zip(FALSE_POSITIVE_RATES, thresholds.tolist(), strict=True)
    return {_rate_name(rate): value for rate, value in named if math.isfinite(value)}


def _rate_name(rate: float) -> str:
    return f"{100 * rate:g}% FPR"


def colour_scale(collector: Collector, thresholds: Mapping[str, float]) -> Scale:
    """One scale for all pictures: transparent for the usual scores of normal pixels, brightest for the largest."""
    counts, edges = _pixel_levels(collector)
    if counts.sum():
        normal = counts[0] if counts[0].sum() else counts[1]
        low, high = (
            operating_curves.quantile(normal, edges, 0.8),
            operating_curves.quantile(counts.sum(axis=0), edges, 0.9995),
        )
    else:
        kept = collector.unmasked.highest(1) + collector.normal.highest(1)
        extremes = [float(case.anomaly_map.float().max()) for case in kept]
        low, high = min(thresholds.values(), default=0.0), max(extremes, default=1.0)
    return Scale(low, max(high, low + 1e-6), thresholds.get(_rate_name(FALSE_POSITIVE_RATES[DRAWN])))


def data_section(collector: Collector) -> Section:
    """How many images of what kind, and examples."""
    rows = collector.rows
    anomalous = [row for row in rows if row.anomalous]
    masked = [row for row in anomalous if row.has_mask]
    facts = {
        "images": f"{len(rows):,}",
        "normal": f"{len(rows) - len(anomalous):,}",
        "anomalous": f"{len(anomalous):,} ({len(masked):,} with annotation)",
        "groups (patients, where names tell)": f"{len({row.group for row in rows}):,}",
    }
    if collector.volumes or collector.other_volumes:
        facts["volumes"] = f"{len(collector.volumes) + len(collector.other_volumes):,}"
    if masked:
        fractions = [row.anomalous_fraction for row in masked]
        facts["anomalous part of an annotated image"] = (
            f"median {np.median(fractions):.2%}, {min(fractions):.2%} to {max(fractions):.2%}"
        )
    galleries = [
        Gallery(f"{kind} examples".capitalize(), [_example(case) for case in cases.values()], "strip")
        for kind, cases in collector.examples.items()
        if cases
    ]
    return Section("Data set", "The test images; annotations are outlined in blue.", facts, galleries)


def curve_section(collector: Collector, metrics: Mapping[str, float], thresholds: Mapping[str, float]) -> Section:
    """ROC and precision-recall curves, score histograms, and Dice against false positive rate."""
    counts, edges = _pixel_levels(collector)
    pictures = _curve_pair("pixel", counts, edges, metrics, thresholds)
    pixels = operating_curves.operating_curve(*counts, edges)
    if pixels:
        points = {name: pixels.at(value) for name, value in thresholds.items()}
        chart = charts.dice_against_fpr(pixels, points)
        pictures.append(Picture("Dice against false positive rate, pixels", chart, "pixel_dice.png"))
    pictures += _score_chart("pixel", counts, edges, thresholds, BINS)
    galleries = [Gallery("Pixels", pictures, "charts")] if pictures else []
    counts, scores = _image_levels(collector)
    pictures = _curve_pair("image", counts, scores, metrics, {}) + _score_chart("image", counts, scores, {}, BINS // 3)
    galleries += [Gallery("Images", pictures, "charts")]
    text = "Marks and vertical lines are the thresholds calibrated on normal validation pixels, by the rate aimed at."
    if pixels is None:
        text += " Curves of pixels need annotated anomalous images, curves of images both kinds."
    return Section("Curves and scores", text, galleries=galleries)


def case_section(collector: Collector, scale: Scale, thresholds: Mapping[str, float]) -> Section:
    """Best, median and worst anomalous images, and the normal images with the highest scores."""
    chosen = best_median_worst(collector.anomalous, CASES_EACH)
    text = ["Anomalous images ranked by their own average precision."]
    if not chosen:
        chosen = [(f"{kind} by score", case) for kind, case in best_median_worst(collector.unmasked, CASES_EACH)]
        text = ["Anomalous images have no annotation and are ranked by image score."]
    chosen += [("Normal, highest score", case) for case in collector.normal.highest(CASES_EACH)]
    bar = charts.colour_bar(scale.low, scale.high, thresholds, panels.MAP_COLOURS)
    galleries = [Gallery("", [Picture("colours of the anomaly maps, in all pictures of this page", bar)], "bar")]
    for kind, case in chosen:
        captioned = zip(overview.case_captions(case, scale), overview.case_panels(case, scale), strict=True)
        pictures = [Picture(caption, panels.png(picture)) for caption, picture in captioned]
        galleries.append(Gallery(f"{kind}: {case.name}", pictures, numbers=case.numbers))
    if scale.threshold is not None:
        text.append("Orange outlines what scores above 95% of the pixels of normal validation images (5% FPR).")
    text.append(GREY_LEVELS)
    if any(case.spacing is None for _, case in chosen):
        text.append("Pictures without a scale bar come from files that do not tell the size of a pixel.")
    return Section("Cases", " ".join(text), galleries=galleries)


def shown_cases(collector: Collector) -> list[tuple[str, Case]]:
    """The few cases of the overview figure and of the method's section."""
    chosen = best_median_worst(collector.anomalous, 1) or best_median_worst(collector.unmasked, 1)
    return chosen + [("Normal, highest score", case) for case in collector.normal.highest(1)]


def volume_section(collector: Collector, scale: Scale, axcodes: str) -> Section | None:
    """Slice strip and three planes of the best, median and worst volume; None without volumes."""
    galleries = []
    chosen = best_median_worst(collector.volumes, 1)
    chosen += [("No annotated anomaly, highest score", case) for case in collector.other_volumes.highest(1)]
    for kind, case in chosen:
        title = f"{kind}: {case.name}"
        strip = [Picture(name, panels.png(picture)) for name, picture in volumes.slice_strip(case, scale)]
        planes = [Picture(name, panels.png(picture)) for name, picture in volumes.three_planes(case, scale, axcodes)]
        galleries += [Gallery(title, strip, "strip", case.numbers), Gallery("", planes)]
    text = (
        "Evenly spaced slices with the anomaly map, then three planes through the highest score (cross); the "
        "annotation is outlined in blue."
    )
    return Section("Volumes", text, galleries=galleries) if galleries else None


def _curve_pair(
    level: str, counts: NDArray, scores: NDArray, metrics: Mapping[str, float], thresholds: Mapping[str, float]
) -> list[Picture]:
    curve = operating_curves.operating_curve(*counts, scores)
    if curve is None:
        return []
    points = {name: curve.at(value) for name, value in thresholds.items()}
    area, precision = (float(metrics.get(f"{level}_{name}", math.nan)) for name in ("auroc", "aupr"))
    prevalence = counts[1].sum() / counts.sum()
    return [
        Picture(f"ROC curve, {level}s", charts.roc(curve, points, area), f"{level}_roc.png"),
        Picture(
            f"Precision-recall curve, {level}s",
            charts.precision_recall(curve, points, precision, prevalence),
            f"{level}_pr.png",
        ),
    ]


def _score_chart(
    level: str, counts: NDArray, scores: NDArray, thresholds: Mapping[str, float], bins: int
) -> list[Picture]:
    if not counts.sum():
        return []
    edges = np.linspace(scores[0], max(scores[-1], scores[0] + 1e-6), bins + 1)
    normal, anomalous = (operating_curves.linear_histogram(row, scores, edges) for row in counts)
    chart = charts.histogram(edges, normal, anomalous, thresholds, f"{level}s", log=level == "pixel")
    return [Picture(f"Scores of normal and anomalous {level}s", chart, f"{level}_scores.png")]


def _pixel_levels(collector: Collector) -> tuple[NDArray, NDArray]:
    """Counts ``[2,L]`` of normal and anomalous pixels and the smallest score ``[L]`` of each occupied bin."""
    histogram = collector.pixels
    counts, edges = histogram.counts.cpu().numpy(), histogram.lower_edges().cpu().numpy()[:-1]
    occupied = counts.sum(axis=0) > 0
    return counts[:, occupied], edges[occupied].astype(np.float64)


def _image_levels(collector: Collector) -> tuple[NDArray, NDArray]:
    """The same of images, exact."""
    scores = torch.tensor([row.score for row in collector.rows], dtype=torch.float64)
    labels = torch.tensor([row.anomalous for row in collector.rows], dtype=torch.bool)
    if not len(scores):
        return np.zeros((2, 0)), np.zeros(0)
    return np.stack([level.numpy() for level in tied_levels(scores, labels)]), scores.unique().numpy()


def _example(case: Case) -> Picture:
    label = None if case.label is None else case.label.numpy()
    return Picture(case.name, panels.png(panels.contours_rgb(overview.case_picture(case, EXAMPLE_SIDE), label, None)))
