"""Bootstrap intervals, sample by sample against scikit-learn and the metrics themselves on the images drawn."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from dino_uad.metrics import AUPRO, ImageIntervals, PixelIntervals
from dino_uad.metrics.bootstrap import drawn_times, group_keys, percentile_intervals

THRESHOLDS = (0.8, 1.0, 1.2, 1.3, 1.4)
REPLICATES = 25


def images(n, seed=0, size=16):
    """Maps ``[n,1,size,size]`` and masks: squares of differing sizes, in two thirds of the images."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, 1, size, size), dtype=bool)
    for i in range(n):
        for _ in range(i % 3):
            row, column, side = rng.integers(0, size - 3, 2).tolist() + [int(rng.integers(2, 7))]
            masks[i, 0, row : row + side, column : column + side] = True
    maps = rng.random(masks.shape) + 0.5 * masks + 0.3 * rng.random((n, 1, 1, 1))
    return torch.as_tensor(maps.astype(np.float32)), torch.as_tensor(masks)


def drawn_images(groups):
    """For each sample, the numbers of the images in it, as often as they are."""
    units = np.array(group_keys(groups, len(groups)))
    order = np.unique(units)
    for block in drawn_times(len(order), REPLICATES, seed=0):
        for times in block.long():
            yield [
                i
                for unit, count in zip(order, times.tolist(), strict=True)
                if count
                for i in np.flatnonzero(units == unit).tolist() * count
            ]


def pixel_values(maps, masks):
    """Every pixel metric of a set of images, by scikit-learn and the metrics that give the estimate."""
    found = {"pixel_auroc": roc_auc_score(masks.ravel(), maps.ravel())}
    found["pixel_aupr"] = average_precision_score(masks.ravel(), maps.ravel())
    aupro = AUPRO(bins=1 << 16)
    aupro.update((maps, masks))
    found["pixel_aupro"] = aupro.compute()
    for name, threshold in zip(("fpr10", "fpr5", "fpr1", "fpr0.5", "fpr0.1"), THRESHOLDS, strict=True):
        found[f"pixel_dice_{name}"] = f1_score(masks.ravel(), maps.ravel() >= np.float32(threshold))
        per_image = [
            f1_score(y.ravel(), m.ravel() >= np.float32(threshold)) for m, y in zip(maps, masks, strict=True) if y.any()
        ]
        found[f"pixel_dice_{name}_per_image"] = np.mean(per_image)
    return found


def samples(metric, monkeypatch):
    """What a metric's function of drawn times gives, ``[R]`` for each name, instead of quantiles of it."""
    caught = {}

    def catch(metrics, units, replicates, seed, confidence, device):
        blocks = [metrics(times) for times in drawn_times(units, replicates, seed)]
        caught.update({name: torch.cat([block[name] for block in blocks]).numpy() for name in blocks[0]})
        return {}

    monkeypatch.setattr(f"{type(metric).__module__}.percentile_intervals", catch)
    metric.compute()
    return caught


@pytest.mark.parametrize("groups", [list(range(12)), [f"patient {i % 5}" for i in range(12)]])
def test_pixel_samples_equal_the_metrics_of_the_images_drawn(groups, monkeypatch):
    maps, masks = images(12)
    metric = PixelIntervals(THRESHOLDS, replicates=REPLICATES)
    for start in range(0, 12, 4):
        metric.update((maps[start : start + 4], masks[start : start + 4], groups[start : start + 4]))
    found = samples(metric, monkeypatch)
    expected = [pixel_values(maps[drawn], masks[drawn]) for drawn in drawn_images(groups)]
    assert set(found) == {*expected[0], "pixel_f1_max"}
    for name in expected[0]:
        tolerance = {"pixel_auroc": 2e-4, "pixel_aupr": 5e-4, "pixel_aupro": 5e-4}.get(name, 1e-12)
        direct = [values[name] for values in expected]
        np.testing.assert_allclose(found[name], direct, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("groups", [list(range(30)), [f"patient {i % 7}" for i in range(30)]])
def test_image_samples_equal_scikit_learn_on_the_images_drawn(groups, monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.random(30) < 0.4
    scores = (rng.standard_normal(30) + labels).round(1)  # with ties
    metric = ImageIntervals(replicates=REPLICATES)
    for start in range(0, 30, 8):
        part = slice(start, start + 8)
        metric.update((torch.as_tensor(scores[part]), torch.as_tensor(labels[part]), groups[part]))
    found = samples(metric, monkeypatch)
    drawn = list(drawn_images(groups))
    np.testing.assert_allclose(found["image_auroc"], [roc_auc_score(labels[d], scores[d]) for d in drawn], atol=1e-12)
    expected = [average_precision_score(labels[d], scores[d]) for d in drawn]
    np.testing.assert_allclose(found["image_aupr"], expected, atol=1e-12)


@pytest.mark.parametrize("replicates", [1, 64, 150])
def test_every_sample_draws_as_many_units_as_there_are(replicates):
    times = torch.cat(list(drawn_times(7, replicates, seed=0)))
    assert times.shape == (replicates, 7) and (times.sum(dim=1) == 7).all()


def test_interval_of_a_mean_agrees_with_scipy():
    values = torch.as_tensor(np.random.default_rng(0).gamma(2.0, size=40))
    found = percentile_intervals(lambda times: {"mean": times @ values / 40}, 40, 20_000, 0, 0.95, "cpu")
    options = {"method": "percentile", "n_resamples": 20_000, "rng": np.random.default_rng(1)}
    expected = bootstrap((values.numpy(),), np.mean, **options).confidence_interval
    assert found == pytest.approx({"mean_low": expected.low, "mean_high": expected.high}, rel=0.01)


def test_intervals_lie_around_the_estimate_and_repeat():
    maps, masks = images(20)
    results = []
    for _ in range(2):
        metric = PixelIntervals(THRESHOLDS, replicates=300)
        metric.update((maps, masks, list(range(20))))
        results.append(metric.compute())
    assert results[0] == results[1]
    for name, value in pixel_values(maps, masks).items():
        assert results[0][f"{name}_low"] < value < results[0][f"{name}_high"]


def test_large_regions_of_equal_scores_keep_their_weight():
    # In float32, 1e6 additions of 1e-6 would give 1.0 only to three digits.
    mask = torch.ones(1, 1, 1000, 1000, dtype=torch.bool)
    metric = PixelIntervals(THRESHOLDS)
    metric.update((torch.ones(mask.shape), mask, [0]))
    assert metric._levels.counts().sum(dim=(0, 2)).tolist() == pytest.approx([0, 1e6, 1.0], rel=1e-12)


def test_group_keys_do_not_depend_on_the_process():
    digest = hashlib.sha256(b"patient 1").digest()[:7]
    assert group_keys(["patient 1", torch.tensor(4), 5], 3) == [int.from_bytes(digest, "big"), 4, 5]
    with pytest.raises(ValueError, match="1 group ids for 6 images"):
        group_keys([1], 6)


def test_one_class_or_nothing_is_nan_with_a_warning():
    pixel, image = PixelIntervals(THRESHOLDS, replicates=10), ImageIntervals(replicates=10)
    for metric, name in ((pixel, "pixel_aupro_low"), (image, "image_auroc_low")):
        with pytest.warns(UserWarning, match="found 0 groups"):
            assert np.isnan(metric.compute()[name])
    pixel.update((torch.rand(3, 1, 4, 4), torch.zeros(3, 1, 4, 4), [0, 1, 2]))
    image.update((torch.rand(3), torch.zeros(3), [0, 1, 2]))
    for metric in (pixel, image):
        with pytest.warns(UserWarning, match="no bootstrap sample"):
            assert np.isnan(list(metric.compute().values())).all()


def test_one_patient_has_no_interval():
    pixel, image = PixelIntervals(THRESHOLDS, replicates=10), ImageIntervals(replicates=10)
    pixel.update((*images(6), ["one patient"] * 6))
    image.update((torch.rand(6), torch.tensor([0, 1, 0, 1, 0, 1]), ["one patient"] * 6))
    for metric in (pixel, image):
        with pytest.warns(UserWarning, match="found 1 groups of images .* expected at least 2"):
            assert np.isnan(list(metric.compute().values())).all()


def test_bad_thresholds_and_scores_raise():
    with pytest.raises(ValueError, match="expected 5 numbers"):
        PixelIntervals([0.5]).update((*images(1), [0]))
    with pytest.raises(ValueError, match="NaN"):
        PixelIntervals(THRESHOLDS).update((torch.full((1, 1, 2, 2), torch.nan), torch.zeros(1, 1, 2, 2), [0]))
