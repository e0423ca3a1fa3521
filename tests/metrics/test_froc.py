"""The free-response curve against a count by hand, and against one threshold after the other."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, label, maximum_filter

from dino_uad.metrics import FROC
from dino_uad.metrics.froc import RATES


def scan(*spots, shape=(32, 32)):
    """A map with single bright pixels, and the mask of those whose third number is 1."""
    scores, mask = torch.zeros(1, *shape), torch.zeros(1, *shape, dtype=torch.uint8)
    for row, column, lesion, value in spots:
        scores[0, row, column], mask[0, row, column] = value, lesion
    return scores, mask


def computed(metric, pairs, names=None):
    maps, masks = zip(*pairs, strict=True)
    metric.reset()
    metric.update((list(maps), list(masks), names or [None] * len(maps)))
    return metric.compute()


def test_counts_by_hand():
    pairs = [
        scan((4, 4, 1, 0.9), (20, 20, 0, 0.8)),
        scan((4, 4, 1, 0.5), (20, 20, 1, 0.1)),
        scan((10, 10, 0, 0.6), (25, 5, 0, 0.3)),
        scan((10, 10, 0, 0.2)),
    ]
    found = computed(FROC(threshold=0.55), pairs)
    # False findings 0.8, 0.6, 0.3, 0.2 in four scans; lesions 0.9, 0.5, 0.1.
    assert found["lesion_sensitivity_at_0.1"] == pytest.approx(1 / 3)  # above 0.8
    assert found["lesion_sensitivity_at_0.25"] == pytest.approx(1 / 3)  # above 0.6
    assert found["lesion_sensitivity_at_0.5"] == pytest.approx(2 / 3)  # above 0.3
    assert found["lesion_sensitivity_at_1"] == 1
    assert found["froc"] == pytest.approx((1 / 3 + 2 / 3 + 4) / 6)
    assert found["lesion_sensitivity"] == pytest.approx(1 / 3)
    assert found["false_findings_per_normal_scan"] == 0.5


def test_the_curve_is_that_of_one_threshold_after_the_other():
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(12):
        scores = gaussian_filter(rng.normal(size=(32, 32)), 2)
        mask = gaussian_filter(rng.normal(size=(32, 32)), 3) > 0.16
        pairs.append((torch.tensor(scores + 0.05 * mask, dtype=torch.float32)[None], torch.from_numpy(mask)[None]))
    found = computed(FROC(), pairs)
    levels = np.unique(torch.cat([p[0].flatten() for p in pairs]).numpy())
    best = dict.fromkeys(RATES, 0.0)
    labelled = [label(p[1][0].numpy(), np.ones((3, 3))) for p in pairs]
    outside = [np.where(p[1][0], -np.inf, p[0][0]) for p in pairs]
    peaks = [one[(one == maximum_filter(one, 3, mode="constant", cval=-np.inf)) & (one > -9)] for one in outside]
    for level in levels[:: len(levels) // 3000 or 1]:
        false = sum((one >= level).sum() for one in peaks)
        hit = [
            (scores[0].numpy()[regions == number] >= level).any()
            for (scores, _), (regions, count) in zip(pairs, labelled, strict=True)
            for number in range(1, count + 1)
        ]
        for rate in RATES:
            if false <= rate * len(pairs):
                best[rate] = max(best[rate], np.mean(hit))
    for rate in RATES:
        assert found[f"lesion_sensitivity_at_{rate:g}"] == pytest.approx(best[rate], abs=0.02)


def test_slices_of_a_volume_are_one_scan():
    lesion = scan((4, 4, 1, 0.9))
    false = scan((20, 20, 0, 0.5))
    apart = computed(FROC(threshold=0.2), [lesion, false, false])
    together = computed(FROC(threshold=0.2), [lesion, false, false], ["a", "a", "a"])
    assert apart["false_findings_per_normal_scan"] == 1
    assert together["lesion_sensitivity_at_1"] == 1 and np.isnan(together["false_findings_per_normal_scan"])


def test_without_lesions_nothing_is_made_up():
    with pytest.warns(UserWarning, match="no lesion"):
        found = computed(FROC(), [scan((1, 1, 0, 0.5))])
    assert np.isnan(found["froc"]) and "lesion_sensitivity" not in found
    with pytest.raises(ValueError, match="NaN or Inf"):
        computed(FROC(), [(torch.full((1, 4, 4), torch.nan), torch.zeros(1, 4, 4))])
