"""Points of the curves a report draws, from counts of negatives and positives per score level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 400
"""Points of a drawn line; more cannot be seen."""


@dataclass(frozen=True)
class Operating:
    """Rates of ``score >= threshold`` for falling thresholds, each array ``[L + 1]``, from nothing to everything.

    Attributes:
        threshold: float; the first is infinite.
        true_positive_rate: recall.
        false_positive_rate: 1 - specificity.
        precision: 1 where nothing is predicted, by convention.
        dice: 2 TP / (predicted + actual positives), pooled.
    """

    threshold: NDArray
    true_positive_rate: NDArray
    false_positive_rate: NDArray
    precision: NDArray
    dice: NDArray

    def at(self, threshold: float) -> dict[str, float]:
        """All rates of ``score >= threshold``."""
        # Falling thresholds: the last one that is not below the wanted one.
        position = int(np.searchsorted(-self.threshold, -threshold, side="right")) - 1
        return {name: float(getattr(self, name)[position]) for name in RATES}

    def thinned(self) -> Operating:
        """At most about :data:`MAX_POINTS`, evenly spread along both axes of the ROC curve."""
        if len(self.threshold) <= MAX_POINTS:
            return self
        travelled = self.true_positive_rate + self.false_positive_rate
        # Half of the points by arc length; half by logarithm, for axes of small false positive rates.
        wanted = np.concatenate([np.linspace(0, 2, MAX_POINTS // 2), np.geomspace(1e-5, 2, MAX_POINTS // 2)])
        keep = np.unique(np.searchsorted(travelled, wanted).clip(0, len(travelled) - 1))
        return Operating(*(getattr(self, name)[keep] for name in ("threshold", *RATES)))


RATES = ("true_positive_rate", "false_positive_rate", "precision", "dice")


def operating_curve(negatives: NDArray, positives: NDArray, scores: NDArray) -> Operating | None:
    """Rates at every occupied level, or None unless both classes are there.

    Args:
        negatives: counts ``[L]`` at each level, ascending in score.
        positives: the same of the other class.
        scores: ``[L]`` smallest score of each level.
    """
    occupied = (negatives + positives) > 0
    fp = np.concatenate([[0], negatives[occupied][::-1].cumsum()]).astype(np.float64)
    tp = np.concatenate([[0], positives[occupied][::-1].cumsum()]).astype(np.float64)
    if fp[-1] == 0 or tp[-1] == 0:
        return None
    return Operating(
        threshold=np.concatenate([[np.inf], scores[occupied][::-1]]),
        true_positive_rate=tp / tp[-1],
        false_positive_rate=fp / fp[-1],
        precision=np.where(tp + fp > 0, tp / np.maximum(tp + fp, 1), 1.0),
        dice=2 * tp / (tp + fp + tp[-1]),
    )


def linear_histogram(counts: NDArray, scores: NDArray, edges: NDArray) -> NDArray:
    """Move counts ``[L]`` at ``scores [L]`` to the bins between ``edges``; scores beyond go to the outermost bins."""
    index = np.searchsorted(edges, scores, side="right") - 1
    return np.bincount(index.clip(0, len(edges) - 2), weights=counts, minlength=len(edges) - 1)


def quantile(counts: NDArray, scores: NDArray, level: float) -> float:
    """Score below which a fraction ``level`` of the counts lies."""
    cumulative = counts.cumsum()
    return float(scores[int(np.searchsorted(cumulative, level * cumulative[-1]).clip(0, len(scores) - 1))])
