"""One picture a person can look at: image, anomaly map over it, annotation and prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dino_uad.files import atomic_path
from dino_uad.report import panels
from dino_uad.report.charts import STYLE, to_png
from dino_uad.report.shown_cases import Case

COLUMNS = ("image", "anomaly map over the image", "annotation (blue), prediction (orange)")


@dataclass(frozen=True)
class Scale:
    """How scores become colours and contours, the same for all pictures of a report.

    Attributes:
        low: score up to which the map is transparent.
        high: score of the brightest colour.
        threshold: score at and above which a pixel is predicted; None draws no prediction.
    """

    low: float
    high: float
    threshold: float | None = None


def case_panels(case: Case, scale: Scale) -> list[panels.Rgb]:
    """The three pictures of a 2-D case, each with a scale bar where the spacing is known."""
    picture, scores = case_picture(case), case.anomaly_map.float().numpy()
    three = [
        picture,
        panels.overlay_rgb(picture, scores, scale.low, scale.high),
        panels.contours_rgb(picture, None if case.label is None else case.label.numpy(), _predicted(case, scale)),
    ]
    per_pixel = case.spacing[1] * scores.shape[1] / picture.shape[1] if case.spacing else None
    return [panels.with_scale_bar(panel, per_pixel) for panel in three]


def case_picture(case: Case, side: int = panels.PANEL_SIDE) -> panels.Rgb:
    """The image of a 2-D case in its own proportions: the network may have seen a square picture of one that is not."""
    (height, width), (rows, columns) = case.anomaly_map.shape, case.image.shape[-2:]
    aspect = height / width * columns / rows
    if case.spacing:
        aspect *= case.spacing[0] / case.spacing[1]
    return panels.grey_rgb(case.image.float().numpy(), side, aspect)


def case_captions(case: Case, scale: Scale) -> tuple[str, str, str]:
    """Captions of the three :func:`case_panels`."""
    truth = "annotation (blue)"
    if case.label is None or not case.label.any():
        truth = "no annotation" if case.label is None else "nothing annotated"
    predicted = _predicted(case, scale)
    if predicted is None:
        return *COLUMNS[:2], truth
    return *COLUMNS[:2], f"{truth}, {'prediction (orange)' if predicted.any() else 'nothing predicted'}"


def _predicted(case: Case, scale: Scale) -> NDArray | None:
    return None if scale.threshold is None else case.anomaly_map.float().numpy() >= scale.threshold


def cases_figure(cases: Sequence[tuple[str, Case]], scale: Scale) -> bytes:
    """A PNG with a row of panels for every ``(title, case)``."""
    rows = [case_panels(case, scale) for _, case in cases]
    titles = [f"{title}\n" + "\n".join(f"{k} {v:.3g}" for k, v in case.numbers.items()) for title, case in cases]
    return grid_figure(rows, titles)


def grid_figure(rows: Sequence[Sequence[panels.Rgb]], titles: Sequence[str]) -> bytes:
    """A PNG of pictures in rows, with a title left of each row and :data:`COLUMNS` above."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(10.2, 2.85 * len(rows) + 0.45), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.1)  # the default cuts the titles' tops
        grid = figure.subplots(len(rows), len(COLUMNS), squeeze=False)
        for axes_row, pictures, title in zip(grid, rows, titles, strict=True):
            for axes, picture in zip(axes_row, pictures, strict=True):
                axes.imshow(picture, interpolation="none")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            axes_row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=10)
        for axes, name in zip(grid[0], COLUMNS, strict=True):
            axes.set_title(name, fontsize=9.5)
        return to_png(figure, dpi=130)


def overview_figure(
    image: ArrayLike,
    anomaly_map: ArrayLike,
    label: ArrayLike | None,
    path: str | os.PathLike[str],
    threshold: float | None = None,
    spacing: Sequence[float] | None = None,
) -> None:
    """Write image, anomaly map over it, and annotation with prediction side by side to the PNG ``path``.

    Of a volume the slice with the highest score is shown.

    Args:
        image: ``[C,H,W]`` or ``[H,W]`` in [0, 1]; a volume is ``[C,H,W,D]``.
        anomaly_map: ``[1,h,w]``, ``[h,w]`` or ``[1,h,w,D]``.
        label: of the size of ``anomaly_map``, anomalous where above 0; None if unknown.
        path: the PNG file.
        threshold: score at and above which a pixel is predicted, e.g. one of the detector's ``thresholds``.
        spacing: millimetres per row and column, for a scale bar.
    """
    arrays = [None if a is None else torch.as_tensor(np.asarray(a)).float() for a in (image, anomaly_map, label)]
    image, anomaly_map, label = arrays
    title = ""
    if anomaly_map.ndim == 4:
        peak = int(anomaly_map.amax(dim=(0, 1, 2)).argmax())
        image, anomaly_map, label = (a if a is None else a[..., peak] for a in arrays)
        title = f"slice {peak}"
    image = image[None] if image.ndim == 2 else image
    anomaly_map = anomaly_map.reshape(anomaly_map.shape[-2:])
    label = None if label is None else label.reshape(label.shape[-2:]) > 0
    low, high = float(anomaly_map.median()), float(anomaly_map.max())
    if threshold is not None:  # the colours must tell what is above the threshold, also where little is
        low, high = min(low, threshold), max(high, threshold + (threshold - low))
    known = None if spacing is None else (float(spacing[0]), float(spacing[1]), 1.0)
    case = Case("", image, anomaly_map, label, {}, known)
    figure = grid_figure([case_panels(case, Scale(low, high, threshold))], [title])
    with atomic_path(path) as temporary:
        temporary.write_bytes(figure)
