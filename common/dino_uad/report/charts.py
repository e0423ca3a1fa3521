"""The charts of a report: ROC, precision-recall, Dice against false positive rate, score histograms."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dino_uad.report.operating_curves import Operating
from dino_uad.transforms import MARK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NORMAL, ANOMALOUS, THIRD = "#0072B2", "#D55E00", "#555555"  # Okabe & Ito
MARKERS = ("o", "s", "^", "D")
SIZE = (4.8, 3.7)
STYLE = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def chart(size: tuple[float, float] = SIZE):
    """Yield ``(figure, axes)`` in the report's style, without pyplot's global state."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.add_subplot()


def to_png(figure: Figure, dpi: int = 160) -> bytes:
    """Render with the Agg back end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": MARK})
    return stream.getvalue()


def roc(curve: Operating, points: Mapping[str, Mapping[str, float]], area: float) -> bytes:
    """ROC curve with operating points (label to rates)."""
    with chart() as (figure, axes):
        thin = curve.thinned()
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", label="chance")
        axes.plot(thin.false_positive_rate, thin.true_positive_rate, color=NORMAL, lw=2, label=f"AUROC {area:.3f}")
        _mark(axes, points, "false_positive_rate", "true_positive_rate")
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1), ylim=(0, 1.01))
        axes.legend(loc="lower right")
        return to_png(figure)


def precision_recall(
    curve: Operating, points: Mapping[str, Mapping[str, float]], area: float, prevalence: float
) -> bytes:
    """Precision-recall curve; the dotted line is what chance reaches."""
    with chart() as (figure, axes):
        thin = curve.thinned()
        axes.axhline(prevalence, color="#999999", linestyle=":", label=f"chance {prevalence:.3g}")
        recall, precision = thin.true_positive_rate[1:], thin.precision[1:]
        axes.step(recall, precision, where="pre", color=NORMAL, lw=2, label=f"average precision {area:.3f}")
        _mark(axes, points, "true_positive_rate", "precision")
        axes.set(xlabel="recall (true positive rate)", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
        axes.legend(loc="best")
        return to_png(figure)


def dice_against_fpr(curve: Operating, points: Mapping[str, Mapping[str, float]]) -> bytes:
    """Pooled Dice at every threshold, over the false positive rate it costs."""
    with chart() as (figure, axes):
        thin = curve.thinned()
        keep = thin.false_positive_rate > 0
        axes.semilogx(thin.false_positive_rate[keep], thin.dice[keep], color=NORMAL, lw=2)
        best = int(curve.dice.argmax())
        axes.plot(curve.false_positive_rate[best], curve.dice[best], "*", color=THIRD, ms=12, label="largest possible")
        _mark(axes, points, "false_positive_rate", "dice")
        lowest = max(1e-5, float(thin.false_positive_rate[keep].min(initial=1.0)))
        axes.set(xlabel="false positive rate of normal pixels", ylabel="Dice (all pixels)", xlim=(lowest, 1))
        axes.set_ylim(bottom=0)
        axes.legend(loc="best")
        return to_png(figure)


def histogram(
    edges: NDArray,
    normal: NDArray,
    anomalous: NDArray,
    thresholds: Mapping[str, float],
    unit: str,
    log: bool,
    names: tuple[str, str] = ("normal", "anomalous"),
    totals: tuple[str, str] | None = None,
) -> bytes:
    """Shares of normal and anomalous pixels or images by score, with the calibrated thresholds.

    ``totals`` says in words how many of what each is made of; where None, that is the sum, in ``unit``.
    """
    with chart() as (figure, axes):
        kinds = zip((normal, anomalous), (NORMAL, ANOMALOUS), names, totals or ("", ""), strict=True)
        for counts, colour, name, said in kinds:
            total = counts.sum()
            if total:
                label = f"{name} ({said or f'{total:,.0f} {unit}'})"
                axes.stairs(counts / total, edges, fill=True, color=colour, alpha=0.3)
                axes.stairs(counts / total, edges, color=colour, lw=1.6, label=label)
        for (name, value), style in zip(thresholds.items(), ("-", "--", ":"), strict=False):
            if edges[0] <= value <= edges[-1]:
                axes.axvline(value, color=THIRD, lw=1.2, linestyle=style, label=name)
        axes.set(xlabel="anomaly score", ylabel=f"share of {unit}", xlim=(edges[0], edges[-1]))
        if log:
            axes.set_yscale("log")
        figure.legend(loc="outside upper center", ncols=2)
        return to_png(figure)


def bars(values: Sequence[float], xlabel: str, ylabel: str, colours: Sequence[str]) -> bytes:
    """A few values as bars, numbered from 1."""
    with chart() as (figure, axes):
        axes.bar(np.arange(1, len(values) + 1), values, width=0.85, color=colours)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.get_major_locator().set_params(integer=True)
        return to_png(figure)


def falling(values: Sequence[float], xlabel: str, ylabel: str) -> bytes:
    """Many positive values in falling order, on a logarithmic axis."""
    with chart() as (figure, axes):
        axes.plot(np.arange(1, len(values) + 1), values, color=NORMAL, lw=2)
        axes.set(xlabel=xlabel, ylabel=ylabel, yscale="log")
        return to_png(figure)


def colour_bar(low: float, high: float, thresholds: Mapping[str, float], colours: str) -> bytes:
    """The colours of the anomaly maps, with the thresholds marked."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    with chart((4.4, 0.95)) as (figure, axes):
        # The overlays leave out the darkest colours, which cannot be seen on black.
        table = ListedColormap(colormaps[colours](np.linspace(0.15, 1, 256)))
        axes.imshow(np.linspace(0, 1, 256)[None], cmap=table, aspect="auto", extent=(low, high, 0, 1))
        axes.grid(False)
        axes.set(yticks=[], xlabel="anomaly score", xlim=(low, high))
        axes.spines[:].set_visible(False)
        # Falling rates are rising thresholds: aligned away from the middle one, close names do not overlap.
        marks = zip(thresholds.items(), ("-", "--", ":"), ("right", "center", "left"), strict=False)
        for (name, value), style, side in marks:
            if low < value < high:
                axes.axvline(value, color="white", lw=2.6)
                axes.axvline(value, color="black", lw=1.4, linestyle=style)
                axes.text(value, 1.08, name, ha=side, va="bottom", fontsize=8.5)
        return to_png(figure)


def _mark(axes: Axes, points: Mapping[str, Mapping[str, float]], x: str, y: str) -> None:
    for (name, rates), marker in zip(points.items(), MARKERS, strict=False):
        axes.plot(rates[x], rates[y], marker, color=ANOMALOUS, markeredgecolor="black", ms=7, ls="none", label=name)
