"""Joined levels against scikit-learn on the pixels themselves, and their bounds where scores are hostile."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score, roc_auc_score

from dino_uad.metrics import GroupLevels
from dino_uad.metrics.curves import auroc, average_precision, f1_max
from dino_uad.metrics.levels import COUNTS, SHARES, Levels


def pixels(scores, masks):
    return Levels.of_pixels(scores, np.stack([~masks, masks]).astype(float))


KINDS = {
    "both signs": lambda z: z,
    "positive": np.exp,
    "clamped at 0": lambda z: np.clip(z, 0, None),
    "all but the highest tied": lambda z: np.where(z > 1, z, 1),
    "cosines": lambda z: 0.1 + 0.01 * z,
    "around 0": lambda z: z - 3,
    "few": lambda z: np.round(2 * z),
    "over and under": lambda z: np.sign(z) * np.exp(8 * np.abs(z)),
}


@pytest.mark.parametrize("images", [1, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_curves_are_those_of_the_pixels(kind, images):
    rng = np.random.default_rng(0)
    masks = rng.random(120_000) < 0.01
    scores = KINDS[kind](rng.normal(size=len(masks)) + 2 * masks).astype(np.float32)
    groups = GroupLevels()
    for i, pair in enumerate(zip(np.split(scores, images), np.split(masks, images), strict=True)):
        groups.add(i, *map(torch.from_numpy, pair))
    counts = groups.counts().sum(0)
    assert float(average_precision(*counts)) == pytest.approx(average_precision_score(masks, scores), abs=5e-4)
    assert float(auroc(*counts)) == pytest.approx(roc_auc_score(masks, scores), abs=2e-4)
    assert counts.shape[1] < 2 * (2 * SHARES * (1 + np.log(len(masks) / SHARES)))


def test_images_of_one_patient_stay_within_the_bound_and_the_memory():
    rng, groups = np.random.default_rng(0), GroupLevels()
    masks = rng.random((64, 8000)) < 0.02
    scores = np.clip(rng.normal(size=masks.shape) + 2 * masks + rng.normal(size=(64, 1)), 0, None).astype(np.float32)
    for pair in zip(scores, masks, strict=True):
        groups.add("one", *map(torch.from_numpy, pair))
    (tables,) = groups._tables.values()
    assert [images for images, _ in tables] == [64] and len(tables[0][1].scores) < 8500
    exact = average_precision_score(masks.ravel(), scores.ravel())
    assert float(average_precision(*groups.counts().sum(0))) == pytest.approx(exact, abs=1e-3)


piles = st.lists(st.integers(1, 5000), min_size=1, max_size=40)


@given(piles, st.integers(0, 9))
@example([1] * 30 + [5000] * 3, 0)
def test_no_count_above_a_threshold_moves_by_more_than_its_share(sizes, seed):
    scores = np.repeat(np.arange(len(sizes), dtype=np.float32), sizes)
    masks = np.random.default_rng(seed).random(len(scores)) < 0.3
    weights = 1e-3 * masks
    weights[np.cumsum(sizes) - 1] += 1  # as pixels of very small regions
    before = Levels.of_pixels(scores, np.stack([~masks, masks, weights]).astype(float))
    after = before.coarser()
    for row in range(3):
        for threshold in before.scores:
            exact = before.weights[row, before.scores >= threshold].sum()
            found = after.weights[row, after.scores >= threshold].sum()
            # Of weights, such as parts of regions, it is a share of the whole that matters.
            assert abs(found - exact) <= (exact if row < COUNTS else weights.sum() + 1e-9) / SHARES
    for curve in (average_precision, auroc, f1_max):
        exact, found = (float(curve(*torch.from_numpy(level.weights[:2]))) for level in (before, after))
        assert found == pytest.approx(exact, abs=2 / SHARES, nan_ok=True)


@given(arrays.arrays(np.float32, 3000, elements=st.floats(-1, 1, width=32)), st.integers(0, 99))
def test_distinct_scores_keep_counts_too(scores, seed):
    scores = np.concatenate([scores, np.random.default_rng(seed).normal(size=3000).astype(np.float32)])
    masks = np.random.default_rng(seed).random(len(scores)) < 0.3
    before = pixels(scores, masks)
    after = before.coarser()
    cumulative = [np.cumsum(level.weights[:, ::-1], axis=1)[:, ::-1] for level in (before, after)]
    places = np.searchsorted(after.scores, before.scores)
    found = np.pad(cumulative[1], ((0, 0), (0, 1)))[:, places]
    assert (np.abs(found - cumulative[0]) <= cumulative[0] / SHARES).all()


def test_only_the_order_of_the_scores_matters():
    rng = np.random.default_rng(0)
    scores, masks = rng.normal(size=50_000).astype(np.float32), rng.random(50_000) < 0.1
    plain, moved = (pixels(s.astype(np.float32), masks).coarser() for s in (scores, scores * 2.0**-100))
    np.testing.assert_array_equal(plain.weights, moved.weights)
    np.testing.assert_array_equal(plain.scores, moved.scores * np.float32(2.0**100))


def test_nothing_is_one_empty_level():
    assert GroupLevels().counts().shape == (0, 2, 1)
    with pytest.raises(ValueError, match="NaN or Inf"):
        GroupLevels().add(0, torch.tensor([torch.inf]), torch.tensor([True]))
