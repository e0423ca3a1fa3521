"""Dice at calibrated thresholds against scikit-learn's F1."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from dino_uad.metrics import DiceAtThresholds

THRESHOLDS = torch.tensor([0.5, 0.7, 0.9, 0.95, 0.99])


def example():
    rng = np.random.default_rng(0)
    masks = rng.random((5, 1, 12, 10)) < np.array([0.0, 0.1, 0.3, 0.0, 0.6]).reshape(5, 1, 1, 1)
    maps = (0.6 * rng.random(masks.shape) + 0.4 * masks).astype(np.float32)
    return maps, masks


@pytest.mark.parametrize("as_list", [False, True])
def test_pooled_and_per_image_dice_equal_f1(as_list):
    maps, masks = example()
    metric = DiceAtThresholds(lambda: THRESHOLDS)
    for part in (slice(0, 2), slice(2, 5)):
        pair = (torch.as_tensor(maps[part]), torch.as_tensor(masks[part]))
        metric.update(tuple(list(t) for t in pair) if as_list else pair)
    found = metric.compute()
    for threshold, rate in zip(THRESHOLDS.numpy(), (10, 5, 1, 0.5, 0.1), strict=True):
        predicted = maps >= threshold
        assert found[f"pixel_dice_fpr{rate}"] == pytest.approx(f1_score(masks.ravel(), predicted.ravel()))
        each = [f1_score(m.ravel(), p.ravel()) for m, p in zip(masks, predicted, strict=True) if m.any()]
        assert found[f"pixel_dice_fpr{rate}_per_image"] == pytest.approx(np.mean(each))


def test_thresholds_are_read_again_after_a_reset():
    thresholds = [torch.full((5,), 0.5), torch.full((5,), 2.0)]
    metric = DiceAtThresholds(lambda: thresholds[0])
    pair = (torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    metric.update(pair)
    assert metric.compute()["pixel_dice_fpr5"] == 1.0
    thresholds.pop(0)
    metric.reset()
    metric.update(pair)
    assert metric.compute()["pixel_dice_fpr5"] == 0.0


def test_without_anomalies_nan_with_a_warning():
    metric = DiceAtThresholds(THRESHOLDS)
    metric.update((torch.rand(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)))
    with pytest.warns(UserWarning, match="pixel_dice_fpr10"):
        assert np.isnan(list(metric.compute().values())).all()


def test_errors():
    pair = (torch.tensor([[[[0.1, torch.nan]]]]), torch.ones(1, 1, 1, 2))
    metric = DiceAtThresholds(THRESHOLDS)
    metric.update(pair)
    with pytest.raises(ValueError, match="1 anomaly scores are NaN or Inf"):
        metric.compute()
    with pytest.raises(ValueError, match="calibrate the model first"):
        DiceAtThresholds(torch.full((5,), torch.nan)).update(pair)
    with pytest.raises(ValueError, match="expected 5 numbers"):
        DiceAtThresholds([0.5]).update(pair)
