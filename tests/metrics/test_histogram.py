"""The adaptive score histogram: order, resolution, exact merging."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dino_uad.metrics.histogram import ScoreHistogram, key_to_score, score_to_key

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
scores_lists = st.lists(finite, min_size=1, max_size=40)


def filled(*parts, bins=32):
    histogram = ScoreHistogram(1, bins)
    for part in parts:
        histogram.update(torch.tensor(part, dtype=torch.float32))
    return histogram


@given(st.lists(finite, min_size=2, max_size=40))
def test_keys_order_as_scores_and_invert(values):
    scores = torch.tensor(values, dtype=torch.float32)
    keys = score_to_key(scores).long()
    assert torch.equal(keys[:, None] < keys, scores[:, None] < scores)
    assert torch.equal(keys[:, None] == keys, scores[:, None] == scores)
    assert torch.equal(key_to_score(keys), scores)


def test_keys_of_the_extremes():
    smallest = torch.finfo(torch.float32).smallest_normal * 2**-23
    scores = torch.tensor([0.0, -0.0, smallest, -smallest, torch.inf, -torch.inf])
    assert score_to_key(scores).tolist() == [0, 0, 1, -1, 0x7F800000, -0x7F800000]


@given(scores_lists)
def test_counts_are_those_of_numpy_on_the_edges(values):
    histogram = filled(values)
    edges = histogram.lower_edges().double().numpy()
    occupied = np.flatnonzero(edges[1:] > edges[:-1])
    expected = np.zeros(histogram.bins, dtype=int)
    positions = np.searchsorted(edges[occupied], np.float64(values), side="right") - 1
    np.add.at(expected, occupied[positions], 1)
    assert histogram.counts[0].tolist() == expected.tolist()


@given(scores_lists, st.randoms(use_true_random=False))
def test_neither_order_nor_split_of_the_scores_matters(values, random):
    whole = filled(values)
    shuffled = random.sample(values, len(values))
    cut = random.randrange(len(values) + 1)
    parts = filled(shuffled[:cut], shuffled[cut:])
    assert torch.equal(whole.counts, parts.counts)
    assert torch.equal(whole.lower_edges(), parts.lower_edges())
    first, second = filled(shuffled[:cut]), filled(shuffled[cut:])
    low, high = torch.minimum(first.low, second.low), torch.maximum(first.high, second.high)
    assert torch.equal(whole.counts, first.between(low, high).counts + second.between(low, high).counts)


@pytest.mark.parametrize(("low", "high", "shift"), [(1.0, 1.0, 0), (1.0, 1.1, 0), (0.1, 1.5, 6), (-3e38, 3e38, 12)])
def test_bins_are_as_narrow_as_documented(low, high, shift):
    histogram = filled([low, high], bins=1 << 20)
    edges = score_to_key(histogram.lower_edges()).long()
    assert int(edges[1] - edges[0]) <= 2**shift
    span = int(histogram.high - histogram.low)
    assert 2 ** int(histogram._grid(histogram.low, histogram.high)[0]) <= max(1, 2 * span / (histogram.bins - 1))


def test_weights_and_rows():
    histogram = ScoreHistogram(2, 16, dtype=torch.float64)
    histogram.update(torch.tensor([1.0, 1.0, 2.0]), torch.tensor([0, 1, 1]), torch.tensor([1.0, 0.25, 0.5]))
    assert histogram.counts.sum(1).tolist() == [1.0, 0.75]


def test_half_precision_and_strided_scores():
    scores = torch.rand(20, 30, generator=torch.Generator().manual_seed(0)).half()
    histogram = ScoreHistogram(1, 64)
    histogram.update(scores.T[::2])
    assert torch.equal(histogram.counts, filled(scores.T[::2].float().tolist(), bins=64).counts)


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (-np.nan, "NaN"), (np.inf, "Inf"), (1e300, "Inf")])
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_are_not_finite_are_named_and_not_counted(value, name, sign):
    histogram = filled([0.5, 1.0])
    with pytest.raises(ValueError, match=name):
        histogram.update(torch.tensor([0.5, sign * value], dtype=torch.float64))
    histogram.require_finite()
    assert int(histogram.counts.sum()) == 2


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_chunks_do_not_matter(seed):
    scores = torch.randn(3000, generator=torch.Generator().manual_seed(seed))
    whole = ScoreHistogram(1, 256)
    whole.update(scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dino_uad.metrics.histogram.CHUNK", 700)
        chunked = ScoreHistogram(1, 256)
        chunked.update(scores)
    assert torch.equal(whole.counts, chunked.counts)
