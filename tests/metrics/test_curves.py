"""Curve numbers from counts, against scikit-learn on the scores themselves."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from dino_uad.metrics.curves import auroc, average_precision, error_bounds, f1_max, tied_levels


def sklearn_f1_max(labels, scores):
    precision, recall, _ = precision_recall_curve(labels, scores)
    return np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))


@pytest.mark.parametrize("levels", [2, 7, 10**6], ids=["mostly tied", "tied", "distinct"])
def test_equal_to_scikit_learn_on_distinct_and_tied_scores(levels):
    rng = np.random.default_rng(levels)
    labels = rng.random(500) < 0.2
    scores = rng.integers(0, levels, 500) + 0.5 * levels * labels * rng.random(500).round(1)
    counts = tied_levels(torch.tensor(scores), torch.tensor(labels))
    assert float(auroc(*counts)) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert float(average_precision(*counts)) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert float(f1_max(*counts)) == pytest.approx(sklearn_f1_max(labels, scores), abs=1e-12)


def test_leading_axes_are_batches():
    counts = torch.randint(0, 5, (2, 3, 4, 10), generator=torch.Generator().manual_seed(0))
    for curve in (auroc, average_precision, f1_max):
        batched = curve(*counts)
        assert batched.shape == (3, 4)
        torch.testing.assert_close(batched[1, 2], curve(*counts[:, 1, 2]))


@pytest.mark.parametrize("counts", [([1, 2], [0, 0]), ([0, 0], [1, 2]), ([0, 0], [0, 0])])
def test_one_class_is_nan(counts):
    negatives, positives = map(torch.tensor, counts)
    for curve in (auroc, average_precision, f1_max):
        assert torch.isnan(curve(negatives, positives))
    assert all(torch.isnan(bound) for bound in error_bounds(negatives, positives).values())


def test_scores_that_share_no_bin_have_no_error():
    positives = torch.tensor([0, 1, 0, 1, 1])
    assert [float(bound) for bound in error_bounds(1 - positives, positives).values()] == [0, 0, 0]


def test_error_bound_of_one_bin_by_hand():
    # One negative and one positive share the only bin: AUROC is 0 or 1 instead of 1/2; AP and F1 are 1 or 1/2, 2/3.
    bounds = error_bounds(torch.tensor([1]), torch.tensor([1]))
    assert float(bounds["auroc"]) == 0.5
    assert float(bounds["aupr"]) == 0.5
    assert float(bounds["f1_max"]) == pytest.approx(1 - 2 / 3)
