"""Scores and how many pixels have each, joined where that moves no count above a threshold by more than a given share.

Only the order of the scores decides what is joined: two maps that rank the pixels alike have the same levels, whatever
the scale, the sign or the spread of their scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARES = 256
"""Joining moves a count above any threshold by at most one part in so many."""
COUNTS = 2
"""Rows that count pixels, normal and anomalous; any other holds weights, of which shares of the whole matter."""


@dataclass(frozen=True)
class Levels:
    """Distinct scores in ascending order, and what has each.

    Attributes:
        scores: ``[L]`` float32.
        weights: ``[rows,L]`` float64: numbers of normal and of anomalous pixels, and further weights.
    """

    scores: NDArray[np.float32]
    weights: NDArray[np.float64]

    @classmethod
    def of_pixels(cls, scores: NDArray[np.float32], rows: NDArray[np.float64]) -> Levels:
        """Make one level of each distinct score of pixels ``[n]``, and add up their ``rows`` ``[rows,n]`` in it."""
        order = np.argsort(scores)
        ordered = scores[order]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
        return cls(ordered[starts], np.add.reduceat(rows[:, order], starts, axis=1) if len(starts) else rows)

    @classmethod
    def joined(cls, *parts: Levels) -> Levels:
        """Merge the levels of several parts; exact."""
        scores, weights = (
            np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in ("scores", "weights")
        )
        return cls.of_pixels(scores, weights)

    def coarser(self) -> Levels:
        """Merge neighbouring levels (:func:`blocks`), each block at the middle one of its scores."""
        starts = np.flatnonzero(np.diff(blocks(self.weights), prepend=-1))
        middle = (starts + np.append(starts[1:], len(self.scores))) // 2
        return Levels(
            self.scores[middle], np.add.reduceat(self.weights, starts, axis=1) if len(starts) else self.weights
        )


def blocks(weights: NDArray[np.float64]) -> NDArray[np.integer]:
    """Numbers ``[L]``, from 0 upwards, of the blocks in which levels may be joined.

    A joined block may not begin and end in different cells of any row. Of counts, the cells are the single numbers up
    to :data:`SHARES`, and from c to ``c (1 + 1 / SHARES)`` beyond; of weights, equal shares of the whole. Levels that
    reach from one cell into the next stand alone, so there are at most two for each of the
    ``SHARES * (1 + ln(n / SHARES))`` cells that n pixels have.

    Args:
        weights: ``[rows,L]`` in ascending order of the score.
    """
    reached = weights[:, ::-1].cumsum(axis=1)[:, ::-1]
    changes = np.zeros(weights.shape[1], dtype=bool)
    for row, (mass, upto) in enumerate(zip(weights, reached, strict=True)):
        first, last = _cells(upto - mass, upto, None if row < COUNTS else mass.sum())
        changes[1:] |= last[:-1] != first[1:]
    return changes.cumsum()


def _cells(above: NDArray[np.float64], upto: NDArray[np.float64], whole: float | None) -> list[NDArray[np.float64]]:
    """Numbers of the cells in which a level begins and ends, of counts, or of weights with the sum ``whole``."""
    if whole is not None:
        # Added up in an order that differs from process to process; the last digit must decide nothing.
        return [np.floor(SHARES * mass / max(whole, 1e-300) + 1e-6) for mass in (above, upto)]
    return [
        np.where(c < SHARES, c, SHARES + np.floor(np.log(np.maximum(c, SHARES) / SHARES) / np.log1p(1 / SHARES)))
        for c in (above, upto)
    ]
