"""AUROC, average precision and largest F1 from counts of negatives and positives per score level.

Every function takes ``negatives`` and ``positives`` of shape ``[..., K]``, counts at K score levels in *ascending*
order of the score, and reduces the last axis. Examples of one level are tied, as scikit-learn treats equal scores, so
the levels may be the distinct scores (exact) or the bins of a histogram (see :func:`error_bounds`). Where only one
class is present the result is NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dino_uad.exact import running_sum


def auroc(negatives: Tensor, positives: Tensor) -> Tensor:
    """Area under the ROC curve: P(negative < positive) + P(negative = positive) / 2 (Mann-Whitney)."""
    negatives, positives = negatives.double(), positives.double()
    below = running_sum(negatives) - negatives / 2
    n, p = negatives.sum(-1), positives.sum(-1)
    return _where_both_classes((positives * below).sum(-1) / (n * p), n, p)


def average_precision(negatives: Tensor, positives: Tensor) -> Tensor:
    """Average precision, sum over levels of (recall gained at the level) x (precision at the level)."""
    negatives, positives = negatives.double(), positives.double()
    tp, fp = _at_or_above(positives), _at_or_above(negatives)
    n, p = fp[..., 0], tp[..., 0]
    return _where_both_classes((positives * tp / (tp + fp).clamp_min(1)).sum(-1) / p, n, p)


def f1_max(negatives: Tensor, positives: Tensor) -> Tensor:
    """Largest F1 = 2 TP / (2 TP + FP + FN) over the thresholds between levels."""
    tp, fp = _at_or_above(positives.double()), _at_or_above(negatives.double())
    n, p = fp[..., 0], tp[..., 0]
    return _where_both_classes((2 * tp / (p[..., None] + tp + fp).clamp_min(1)).amax(-1), n, p)


def error_bounds(negatives: Tensor, positives: Tensor) -> dict[str, Tensor]:
    """Largest possible distance of each curve number from its value on the unbinned scores.

    Only the order inside a bin is unknown. AUROC: each pair of a negative and a positive that share a bin counts 1/2
    instead of 0 or 1, hence ``sum(neg * pos) / (2 N P)``. Average precision: a positive of a bin that holds ``n``
    negatives and ``p`` positives, with ``TP0`` and ``FP0`` above it, has a precision between
    ``(TP0 + 1) / (TP0 + 1 + FP0 + n)`` and ``(TP0 + p) / (TP0 + p + FP0)``. F1: inside a bin it is at most what all of
    the bin's positives and none of its negatives would give.
    """
    negatives, positives = negatives.double(), positives.double()
    tp, fp = _at_or_above(positives), _at_or_above(negatives)
    n, p = fp[..., 0], tp[..., 0]
    tp_above, fp_above = tp - positives, fp - negatives
    precision = tp / (tp + fp).clamp_min(1)
    highest = tp / (tp + fp_above).clamp_min(1)
    lowest = (tp_above + 1) / (tp_above + 1 + fp)
    spread = torch.maximum(highest - precision, precision - lowest)
    f1_highest = (2 * tp / (p[..., None] + tp + fp_above).clamp_min(1)).amax(-1)
    bounds = {
        "auroc": (negatives * positives).sum(-1) / (2 * n * p),
        "aupr": (positives * spread).sum(-1) / p,
        "f1_max": f1_highest - f1_max(negatives, positives),
    }
    return {name: _where_both_classes(bound, n, p) for name, bound in bounds.items()}


def score_levels(scores: Tensor) -> tuple[Tensor, int]:
    """Number ``[N]`` of each of ``scores [N]`` among their K distinct values, from 0, and K (1 without scores)."""
    _, level = scores.unique(return_inverse=True)
    return level, int(level.max()) + 1 if len(level) else 1


def tied_levels(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negatives and positives ``[K]`` at the K distinct values of ``scores [N]``, for exact curve numbers."""
    level, size = score_levels(scores)
    return torch.bincount(level[~labels], minlength=size), torch.bincount(level[labels], minlength=size)


def _at_or_above(counts: Tensor) -> Tensor:
    return running_sum(counts.flip(-1)).flip(-1)


def _where_both_classes(value: Tensor, negatives: Tensor, positives: Tensor) -> Tensor:
    return torch.where((negatives > 0) & (positives > 0), value, torch.nan)


CURVES = {"auroc": auroc, "aupr": average_precision, "f1_max": f1_max}
"""Name to function; ``aupr`` is the average precision, which the papers call AUPR."""
