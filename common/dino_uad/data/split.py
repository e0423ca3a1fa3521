"""Seeded splits that keep a patient's images together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np


def split_groups(
    groups: Collection[str], fractions: Sequence[float], seed: int, where: object = "data set"
) -> list[set[str]]:
    """Draw disjoint sets of groups, each about its fraction of all and at least one; the rest is the last set.

    The draw depends on the set of names and the seed only, not on their order.

    Raises:
        ValueError: fewer groups than sets; ``where`` is named.
    """
    names = sorted(set(groups))
    if len(names) <= len(fractions):
        raise ValueError(
            f"{where}: found {len(names)} image groups (patients); a split needs at least {len(fractions) + 1}. "
            "Add images, or put them into train/good, valid/good and test folders."
        )
    shuffled = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    counts = [max(1, round(fraction * len(names))) for fraction in fractions]
    while sum(counts) >= len(names):
        counts[counts.index(max(counts))] -= 1
    bounds = np.cumsum([0, *counts])
    drawn = [set(shuffled[start:stop]) for start, stop in pairwise(bounds)]
    return [*drawn, set(shuffled[bounds[-1] :])]


def draw_test(
    anomalous: Collection[str], normal: Collection[str], fraction: float, seed: int, always: Collection[str] = ()
) -> set[str]:
    """Draw the test patients from those with anomalies and from those without, each about its fraction.

    Args:
        anomalous: patients with an anomaly; at least one of them is drawn.
        normal: patients without; at least one is drawn where two others remain.
        fraction: share of either.
        seed: of the draw.
        always: patients with an anomaly that are all taken, because nothing of theirs is trained on.
    """
    left = 2  # for training and validation
    others = set(anomalous) - set(always)
    drawn = set(always) | _some(others, max(not always, round(fraction * len(others))), seed)
    rest = len(set(anomalous) - drawn) + len(normal) - left
    return drawn | _some(normal, min(max(1, round(fraction * len(normal))), max(rest, 0)), seed + 1)


def _some(names: Collection[str], count: int, seed: int) -> set[str]:
    ordered = sorted(names)
    return {ordered[index] for index in np.random.default_rng(seed).permutation(len(ordered))[:count]}
