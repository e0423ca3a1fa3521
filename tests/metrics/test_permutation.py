"""Permutation test, against all swaps of the pixels themselves."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from dino_uad.metrics import ImageHistograms, permutation_test
from dino_uad.metrics.curves import auroc


def images(n, seed=0, strength=0.5):
    rng = np.random.default_rng(seed)
    masks = rng.random((n, 1, 16, 16)) < rng.choice([0.0, 0.1, 0.3], n).reshape(n, 1, 1, 1)
    maps = rng.random(masks.shape) + strength * masks + 0.3 * rng.random((n, 1, 1, 1))
    return torch.as_tensor(maps.astype(np.float32)), torch.as_tensor(masks)


def histograms(maps, masks):
    store = ImageHistograms()
    for pair in zip(maps, masks, strict=True):
        store.append(*pair)
    return store.counts()


def test_image_histograms_keep_the_pooled_metric():
    maps, masks = images(12)
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert float(auroc(*histograms(maps, masks).sum(0))) == pytest.approx(expected, abs=1e-4)


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
    found = permutation_test(histograms(maps, masks), histograms(other, masks), permutations=4000)
    assert found.difference == pytest.approx(all_differences[0], abs=2e-4)
    assert found.p_value == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("metric", ["auroc", "aupr"])
def test_permutation_does_not_depend_on_the_scales_of_the_methods(metric):
    maps, masks = images(15)
    other = images(15, seed=0, strength=0.1)[0]
    plain = permutation_test(histograms(maps, masks), histograms(other, masks), metric, 500)
    scaled = permutation_test(histograms(maps, masks), histograms(1e6 * other, masks), metric, 500)
    assert scaled.difference == pytest.approx(plain.difference, abs=2e-3)
    assert scaled.p_value == pytest.approx(plain.p_value, abs=0.02)
    assert plain.p_value < 0.05


def test_identical_methods_have_p_one():
    counts = histograms(*images(8))
    found = permutation_test(counts, counts, permutations=100)
    assert (found.difference, found.p_value) == (0.0, 1.0)


def test_different_images_and_unknown_metrics_raise():
    maps, masks = images(5)
    with pytest.raises(ValueError, match="same test images in the same order"):
        permutation_test(histograms(maps, masks), histograms(maps, masks.flip(0)))
    with pytest.raises(ValueError, match="5 and 4 images"):
        permutation_test(histograms(maps, masks), histograms(maps[:4], masks[:4]))
    with pytest.raises(ValueError, match="auroc, aupr, f1_max"):
        permutation_test(histograms(maps, masks), histograms(maps, masks), "dice")
