"""The places that a map points at, and the lesions that they hit: what a free-response curve counts.

A *candidate* is a set of equal scores, each within ``reach`` pixels of the next, with no higher score within ``reach``
of any of them: along rows and columns, and in the slices before and behind. A plateau is therefore one candidate, the
flank of a higher place none, and a map of one value has none. This is the suppression of all but maxima by which Liu et
al. 2017 ("Detecting Cancer Metastases on Gigapixel Pathology Images") take their marks for CAMELYON16, in a form that
depends neither on the order of equal scores nor on where the picture begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dino_uad.findings import components

REACHES = 16
"""A side is so many times the reach of a candidate, which is then a patch of 14 pixels in 224."""


@dataclass(frozen=True)
class Candidates:
    """The candidates of one scan.

    Attributes:
        scores: ``[n]`` float32, one a candidate.
        hits: ``[m,2]``, pairs of a candidate and a lesion, both counted from 0, that it hits.
    """

    scores: NDArray[np.float32]
    hits: NDArray[np.integer]

    @property
    def false(self) -> NDArray[np.float32]:
        """Scores of the candidates that hit no lesion."""
        return np.delete(self.scores, self.hits[:, 0])

    def found(self, lesions: int) -> NDArray[np.float32]:
        """``[lesions]``: the highest candidate that hits each; -Inf where none does."""
        highest = np.full(lesions, -np.inf, dtype=np.float32)
        np.maximum.at(highest, self.hits[:, 1], self.scores[self.hits[:, 0]])
        return highest


def reach_of(height: int, width: int) -> int:
    """How far a candidate keeps others away, in pixels; odd, so that half of it is the same on either side."""
    return max(1, max(height, width) // REACHES) | 1


def candidates(scores: NDArray[np.float32], lesions: NDArray[np.integer]) -> Candidates:
    """The candidates of a scan, and the lesions they hit: with a pixel within half their reach, in a slice of theirs.

    Half the reach allows for maps that are no finer than a patch. Candidates are more than ``reach`` apart, so that a
    slice has at most ``16 * 16``. Memory beside the arguments: about five bytes a voxel.

    Args:
        scores: ``[D,H,W]``, finite.
        lesions: like ``scores``, 0 or the number of a lesion.
    """
    reach = reach_of(*scores.shape[1:])
    highest = highest_around(scores, reach)
    groups, count = components(_spread(highest, reach // 2), True)
    values, kept, pairs = np.zeros(count, dtype=np.float32), np.ones(count, dtype=bool), [np.zeros((0, 2), np.int64)]
    for place, numbers in enumerate(groups):
        values[numbers[highest[place]] - 1] = scores[place][highest[place]]
        inside = (lesions[place] > 0) & (numbers > 0)
        pairs.append(
            np.unique(np.stack([numbers[inside], lesions[place][inside]], axis=1), axis=0).astype(np.int64) - 1
        )
    for numbers, shelf in zip(groups, shelves(scores, highest, reach), strict=True):
        kept[numbers[shelf] - 1] = False
    kept &= values > scores.min(initial=np.inf)  # all of a map that has one value
    hits = np.unique(np.concatenate(pairs), axis=0)
    hits = hits[kept[hits[:, 0]]]
    hits[:, 0] = np.cumsum(kept)[hits[:, 0]] - 1
    return Candidates(values[kept], hits)


def _spread(marks: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Marks ``[D,H,W]`` spread by ``reach`` within their slices: those touch that are within twice that and one."""
    result = np.empty_like(marks)
    for place, plane in enumerate(marks):
        result[place] = window_max(plane, reach)
    return result


def highest_around(scores: NDArray, reach: int) -> NDArray[np.bool_]:
    """Bool ``[D,H,W]``: scores that are the highest within ``reach``, in their slice and those beside it."""
    result = np.empty(scores.shape, dtype=bool)
    for place, highest in _in_slices(scores, reach):
        np.equal(scores[place], highest, out=result[place])
    return result


def shelves(scores: NDArray, highest: NDArray[np.bool_], reach: int) -> Iterator[NDArray[np.bool_]]:
    """Yield for each slice where ``highest`` is within ``reach`` of an equal score that is not: there, a flank."""
    others = (np.where(marks, -np.inf, plane) for plane, marks in zip(scores, highest, strict=True))
    for place, equal in _in_slices(others, reach):
        yield highest[place] & (scores[place] == equal)


def _in_slices(planes: Iterable[NDArray], reach: int) -> Iterator[tuple[int, NDArray]]:
    """The number of each slice, and the highest score within ``reach`` in it and those beside it; three are held."""
    before = here = None
    place = 0
    for plane in planes:
        after = window_max(plane, reach)
        if here is not None:
            yield place, _highest(before, here, after)
            place += 1
        before, here = here, after
    if here is not None:
        yield place, _highest(before, here, None)


def _highest(*planes: NDArray | None) -> NDArray:
    return np.maximum.reduce([plane for plane in planes if plane is not None])


def window_max(plane: NDArray, reach: int) -> NDArray:
    """The largest value within ``reach`` rows and columns of each, ``[H,W]`` of numbers or bool.

    The window doubles from step to step, which takes a fifth of the time of scipy's ``maximum_filter``.
    """
    for axis in (0, 1):
        lines = np.moveaxis(plane, axis, 0)
        lowest = False if plane.dtype == bool else -np.inf
        padded = np.full((len(lines) + 2 * reach, *lines.shape[1:]), lowest, plane.dtype)
        padded[reach : reach + len(lines)] = lines
        width, wanted = 1, 2 * reach + 1
        while width < wanted:
            step = min(width, wanted - width)
            padded = np.maximum(padded[:-step], padded[step:])
            width += step
        plane = np.moveaxis(padded, 0, axis)
    return plane
