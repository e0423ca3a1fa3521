"""Paired permutation test between two methods on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dino_uad.metrics.curves import CURVES
from dino_uad.settings import require_choice, require_count

PERMUTATIONS_AT_A_TIME = 64


@dataclass(frozen=True)
class PermutationResult:
    """Difference of a pooled pixel metric (first minus second method) and its two-sided p-value."""

    difference: float
    p_value: float


def permutation_test(
    first: Tensor, second: Tensor, metric: str = "auroc", permutations: int = 10_000, seed: int = 0
) -> PermutationResult:
    """Paired permutation test of whole patients; the DPMM paper swaps images, 10 000 times.

    Under the null hypothesis a patient's maps could as well have come from the other method, so each permutation swaps
    the two methods' maps of a random half of the patients and recomputes the pooled metric of both. Slices of one
    patient share what makes a method better or worse on it: swapping them one by one would take them for independent
    and find differences where there are none. Methods score on scales of their own (a distance, a squared error), hence
    both are first mapped to the rank of a score among all of its method's pixels; that leaves AUROC and AUPR of each
    method as they are and makes maps exchangeable. p = (1 + #{permuted |difference| >= observed}) / (1 + permutations)
    (Phipson & Smyth, 2010); with n patients it is rarely below 2 / 2^n.

    Args:
        first: ``[n,2,K]`` normal and anomalous pixels of each patient (or image, where that is all that is known) at K
            levels of the score, of :class:`~dino_uad.metrics.group_levels.GroupLevels`.
        second: ``[n,2,L]``, the other method's, for the same patients in the same order.
        metric: ``auroc``, ``aupr`` or ``f1_max``.
        permutations: number of random swaps.
        seed: of the generator that draws them.

    Raises:
        ValueError: the patients of the two methods do not have the same numbers of normal and anomalous pixels.
    """
    require_choice("metric", metric, CURVES)
    require_count("permutations", permutations)
    _require_same_images(first, second)
    curve = CURVES[metric]
    first, second = on_common_ranks(first, second)
    observed = float(curve(*first.sum(0)) - curve(*second.sum(0)))
    both, swapped, difference = (first + second).sum(0), second.sum(0), (first - second).flatten(1)
    generator = torch.Generator().manual_seed(seed)
    extreme = 0
    for start in range(0, permutations, PERMUTATIONS_AT_A_TIME):
        size = min(PERMUTATIONS_AT_A_TIME, permutations - start)
        kept = torch.randint(2, (size, len(first)), generator=generator).to(difference)
        mixed = swapped + (kept @ difference).view(size, *swapped.shape)
        permuted = curve(*mixed.unbind(1)) - curve(*(both - mixed).unbind(1))
        # Rounding must not decide between permutations that are equal to the observed assignment.
        extreme += int((permuted.abs() >= abs(observed) - 1e-12).sum())
    undefined = observed != observed
    return PermutationResult(observed, torch.nan if undefined else (1 + extreme) / (1 + permutations))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of several tests (Holm, 1979): the chance that any of them is at most alpha wrongly is alpha.

    Args:
        p_values: of the tests that are looked at together; NaN, of a test without a result, counts for nothing.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = largest
    return adjusted


def on_common_ranks(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both methods' counts, float64 ``[n,2,U]``, over the sorted union of their levels' mean pooled ranks."""
    ranks = []
    kept = []
    for counts in (first, second):
        pooled = counts.sum(dim=(0, 1), dtype=torch.float64)  # whole numbers
        occupied = pooled > 0
        ranks.append((2 * pooled.cumsum(0) - pooled)[occupied])
        kept.append(counts[..., occupied].double())
    unique, position = torch.cat(ranks).unique(return_inverse=True)
    positions = position.split([len(rank) for rank in ranks])
    shape = (*first.shape[:2], len(unique))
    return tuple(
        counts.new_zeros(shape).index_copy_(2, where, counts) for counts, where in zip(kept, positions, strict=True)
    )


def _require_same_images(first: Tensor, second: Tensor) -> None:
    pixels = [counts.sum(dim=2, dtype=torch.float64) for counts in (first, second)]
    if pixels[0].shape != pixels[1].shape or not torch.equal(*pixels):
        raise ValueError(
            f"the two methods' counts are of {len(first)} and {len(second)} patients that differ in number or in "
            "their normal and anomalous pixels, expected the same test images in the same order"
        )
