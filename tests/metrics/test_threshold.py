"""Thresholds at false positive rates: the guarantee, and how close to the rate they come."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from dino_uad.metrics import ThresholdAtFPR

FPRS = (0.10, 0.05, 0.01, 0.005, 0.001)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def thresholds_of(scores, **kwargs):
    metric = ThresholdAtFPR(**kwargs)
    metric.update([torch.as_tensor(np.float32(scores)).reshape(1, 1, -1)])
    return metric.compute()


@given(
    st.lists(st.one_of(finite, st.integers(0, 3).map(float)), min_size=1, max_size=200), st.sampled_from([4, 1 << 12])
)
def test_rate_is_never_above_the_requested_one(values, bins):
    scores = np.float32(values)
    for fpr, threshold in zip(FPRS, thresholds_of(scores, bins=bins).numpy(), strict=True):
        assert np.mean(scores >= threshold) <= fpr


def closer_thresholds_of(scores, **kwargs):
    metric = ThresholdAtFPR(**kwargs)
    for _ in range(2):
        for part in np.array_split(np.float32(scores), 3):
            metric.update([torch.from_numpy(part).reshape(1, 1, -1)])
        if metric._closer is None:
            metric.look_closer()
    return metric.compute()


@given(
    st.lists(st.one_of(finite, st.integers(0, 3).map(float)), min_size=1, max_size=200),
    st.sampled_from([1 << 12, 1 << 14]),
)
@example([-2.5, 0.0, 1e-9, 1.0, 1.0, 3.0], 1 << 20)
def test_after_a_closer_look_it_is_the_smallest_number_of_that_rate(values, bins):
    scores = np.float32(values)
    for fpr, threshold in zip(FPRS, closer_thresholds_of(scores, bins=bins).numpy(), strict=True):
        assert np.mean(scores >= threshold) <= fpr < np.mean(scores >= np.nextafter(threshold, np.float32(-np.inf)))


def test_a_threshold_moves_no_further_than_the_scores_do():
    # Of both signs and with zeros among them: bins of 2048 floats, and each score one step from the edge of its bin.
    magnitude = (np.float32(1 + np.random.default_rng(0).random(4000)).view(np.int32) >> 11) << 11
    below = np.concatenate([[-1, 0], (magnitude - 1).view(np.float32)]).astype(np.float32)
    above = np.concatenate([[-1, 0], magnitude.view(np.float32)]).astype(np.float32)
    moved = np.abs(above - below).max()
    assert (closer_thresholds_of(above) - closer_thresholds_of(below)).abs().max() <= moved < 1.2e-7
    assert (thresholds_of(above) - thresholds_of(below)).abs().max() > 1e-4, "by the edges of bins"


def test_a_closer_look_at_nothing_is_refused():
    with pytest.raises(ValueError, match="no normal validation pixels"):
        ThresholdAtFPR().look_closer()


def test_closed_form_on_distinct_scores():
    # 1000 scores 1 + i / 1024: exactly the 100, 50, 10, 5, 1 largest may reach the threshold.
    scores = 1 + np.random.default_rng(0).permutation(1000) / 1024
    found = thresholds_of(scores, bins=1 << 20).numpy()
    assert [int((scores >= t).sum()) for t in found] == [100, 50, 10, 5, 1]
    np.testing.assert_allclose(found, 1 + np.array([900, 950, 990, 995, 999]) / 1024, atol=1e-3)


def test_uniform_and_normal_quantiles():
    scores = np.random.default_rng(0).random(400_000)
    np.testing.assert_allclose(thresholds_of(scores), [0.9, 0.95, 0.99, 0.995, 0.999], atol=2e-3)
    np.testing.assert_allclose(
        thresholds_of(scores), np.quantile(np.float32(scores), [0.9, 0.95, 0.99, 0.995, 0.999]), rtol=2e-4
    )


def test_constant_scores_give_the_next_number():
    assert thresholds_of(np.full(100, 0.25)).tolist() == [float(np.nextafter(np.float32(0.25), np.float32(1)))] * 5


def test_batches_and_lists_agree():
    maps = torch.rand(6, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    metric = ThresholdAtFPR()
    metric.update(maps[:4])
    metric.update(list(maps[4:]))
    assert torch.equal(metric.compute(), thresholds_of(maps.numpy()))


def test_errors():
    with pytest.raises(ValueError, match="no normal validation pixels"):
        ThresholdAtFPR().compute()
    with pytest.raises(ValueError, match="NaN"):
        thresholds_of([0.1, np.nan])
    with pytest.raises(ValueError, match=r"false positive rate is 5; expected a number in .0, 1."):
        ThresholdAtFPR(fprs=(5,))
