"""Seeded splits that keep a patient's images together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

SLICE_NUMBER = re.compile(r"[ _.-]+(?:slice|sl|s|z|img|image)?[ _-]?\d{1,4}$", re.IGNORECASE)
TIME_POINT = re.compile(r"(?<=\d{5})-\d{3}$")  # BraTS: BraTS-GLI-00001-000 is patient 00001's first scan


def patient_groups(names: Sequence[str], volumes: bool, pattern: str | None = None) -> list[str]:
    """Return for each name the patient (or other unit that a split must not cut) it belongs to.

    Pictures lose a trailing slice number (``TCGA_CS_4941_19960909_12`` -> ``TCGA_CS_4941_19960909``); where fewer than
    3 groups would be left, numbers are taken to count images and each name is its own group. Volumes are
    their own group, but for BraTS time points.

    Args:
        names: file names without suffix, with their folder where that tells patients apart.
        volumes: whether each is a whole volume.
        pattern: regular expression whose first group (or whole match) is the patient, instead of the rules above.

    Raises:
        ValueError: ``pattern`` does not match a name.
    """
    if pattern:
        return [_matched(pattern, name) for name in names]
    groups = [(TIME_POINT if volumes else SLICE_NUMBER).sub("", name) for name in names]
    if not volumes and len(set(groups)) < 3:
        return list(names)
    return groups


def _matched(pattern: str, name: str) -> str:
    match = re.search(pattern, name)
    if match is None:
        raise ValueError(f"group_pattern {pattern!r} does not match the name {name!r}; it must match every image's.")
    return match.group(1) if match.groups() else match.group(0)


def split_groups(
    groups: Sequence[str], fractions: Sequence[float], seed: int, where: object = "data set"
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
