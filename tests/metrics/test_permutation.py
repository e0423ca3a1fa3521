"""Permutation test, against all swaps of the pixels themselves and by simulation of what does not differ."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from dino_uad.metrics import GroupLevels, holm, permutation_test
from dino_uad.metrics.curves import auroc


def images(n, seed=0, strength=0.5):
    rng = np.random.default_rng(seed)
    masks = rng.random((n, 1, 16, 16)) < rng.choice([0.0, 0.1, 0.3], n).reshape(n, 1, 1, 1)
    maps = rng.random(masks.shape) + strength * masks + 0.3 * rng.random((n, 1, 1, 1))
    return torch.as_tensor(maps.astype(np.float32)), torch.as_tensor(masks)


def levels(maps, masks):
    store = GroupLevels()
    for number, pair in enumerate(zip(maps, masks, strict=True)):
        store.add(number, *pair)
    return store.counts()


def test_levels_keep_the_pooled_metric():
    maps, masks = images(12)
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert float(auroc(*levels(maps, masks).sum(0))) == pytest.approx(expected, abs=1e-4)


def test_permutation_p_value_agrees_with_all_swaps():
    maps, masks = images(7, seed=3)
    other = maps + 0.5 * torch.rand(maps.shape, generator=torch.Generator().manual_seed(0)) * masks
    ranks = [m.ravel().argsort().argsort().reshape(m.shape) for m in (maps, other)]

    def difference(swap):
        swap = torch.tensor(swap).reshape(-1, 1, 1, 1)
        pair = torch.where(swap, ranks[1], ranks[0]), torch.where(swap, ranks[0], ranks[1])
        first, second = (roc_auc_score(masks.ravel(), scores.ravel()) for scores in pair)
        return first - second

    all_differences = np.array([difference(swap) for swap in product([False, True], repeat=7)])
    exact = np.mean(np.abs(all_differences) >= abs(all_differences[0]) - 1e-9)
    found = permutation_test(levels(maps, masks), levels(other, masks), permutations=4000)
    assert found.difference == pytest.approx(all_differences[0], abs=2e-4)
    assert found.p_value == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("metric", ["auroc", "aupr"])
def test_permutation_does_not_depend_on_the_scales_of_the_methods(metric):
    maps, masks = images(15)
    other = images(15, seed=0, strength=0.1)[0]
    plain = permutation_test(levels(maps, masks), levels(other, masks), metric, 500)
    scaled = permutation_test(levels(maps, masks), levels(1e6 * other, masks), metric, 500)
    assert scaled.difference == pytest.approx(plain.difference, abs=2e-3)
    assert scaled.p_value == pytest.approx(plain.p_value, abs=0.02)
    assert plain.p_value < 0.05


def test_identical_methods_have_p_one():
    counts = levels(*images(8))
    found = permutation_test(counts, counts, permutations=100)
    assert (found.difference, found.p_value) == (0.0, 1.0)


def patients_levels(rng, patients=20, slices=6, pixels=150):
    """Counts ``[patients,2,K]`` by two methods that are alike but for what they share on all slices of a patient."""
    counts = []
    for _ in range(2):
        shift = np.repeat(rng.normal(0, 0.7, patients), slices)
        mask = np.arange(pixels) < 15
        scores = rng.normal(size=(patients * slices, pixels)) + shift[:, None] * mask
        levels_of = np.clip(np.round(10 * scores).astype(int) + 80, 0, 160)
        by_slice = torch.zeros(patients * slices, 2, 161, dtype=torch.float64)
        for kind in range(2):
            at = torch.from_numpy(levels_of[:, mask == kind])
            by_slice[:, kind].scatter_add_(1, at, torch.ones(at.shape, dtype=torch.float64))
        counts.append(by_slice)
    return counts


def test_methods_that_do_not_differ_are_told_apart_no_more_often_than_the_level():
    rng, by_patient, by_slice = np.random.default_rng(0), [], []
    for seed in range(200):
        pair = patients_levels(rng)
        whole = [counts.view(20, 6, 2, -1).sum(1) for counts in pair]
        by_patient.append(permutation_test(*whole, "auroc", 200, seed).p_value <= 0.05)
        by_slice.append(permutation_test(*pair, "auroc", 200, seed).p_value <= 0.05)
    assert stats.binomtest(sum(by_patient), 200, 0.05, alternative="greater").pvalue > 0.01
    assert sum(by_slice) > 30, "what swapping slices would say, which is why patients are swapped"


def test_slices_of_a_patient_are_one_row():
    maps, masks = images(6)
    store = GroupLevels()
    for group, pair in zip("ababcc", zip(maps, masks, strict=True), strict=True):
        store.add(group, *pair)
    assert sorted(store.counts().sum(dim=(1, 2)).tolist()) == [2 * 256] * 3


def test_maps_that_rank_alike_do_not_differ_whatever_their_scales():
    maps, masks = images(9)
    maps = (maps - 0.6).clamp(min=0)  # a third is background, at 0
    for same in (0.2 + 0.01 * maps, maps - 0.4, maps.exp(), -1 / (1 + maps)):
        found = permutation_test(levels(maps, masks), levels(same, masks), "aupr", 50)
        assert (found.difference, found.p_value) == (0.0, 1.0)


def test_holm_by_hand():
    # statsmodels.stats.multitest.multipletests([0.01, 0.04, 0.03, 0.5], method="holm")
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.4, 0.9, 0.6]) == [1.0, 1.0, 1.0]
    adjusted = holm([0.01, float("nan"), 0.02])
    assert adjusted[::2] == pytest.approx([0.02, 0.02]) and np.isnan(adjusted[1])


def test_different_images_and_unknown_metrics_raise():
    maps, masks = images(5)
    with pytest.raises(ValueError, match="same test images in the same order"):
        permutation_test(levels(maps, masks), levels(maps, masks.flip(0)))
    with pytest.raises(ValueError, match="5 and 4 patients"):
        permutation_test(levels(maps, masks), levels(maps[:4], masks[:4]))
    with pytest.raises(ValueError, match="auroc, aupr, f1_max"):
        permutation_test(levels(maps, masks), levels(maps, masks), "dice")
