"""A closer look into bins of a histogram: single scores there, means elsewhere."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dino_uad.metrics import CloserLook, ScoreHistogram

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


BINS = 1 << 12  # of at most 2**20 floats: 8 MB for each that is looked into


def looked_closer(parts, which):
    """A histogram of some scores, which of its bins are looked into, and the levels that are found."""
    histogram = ScoreHistogram(1, BINS)
    for part in parts:
        histogram.update(part)
    chosen = histogram.counts[0].nonzero()[:, 0][which].unique()
    closer = CloserLook(histogram, chosen)
    for part in parts:
        closer.update(part)
    return histogram, chosen.tolist(), closer.levels()


@given(
    st.lists(st.one_of(finite, st.integers(-2, 2).map(float)), min_size=1, max_size=60),
    st.lists(st.integers(-1, 0), max_size=2),
    st.integers(0, 60),
)
def test_chosen_bins_have_their_scores_and_others_the_mean_of_theirs(values, which, cut):
    scores = torch.tensor(values, dtype=torch.float32)
    which = torch.tensor(which, dtype=torch.int64)  # the lowest, the highest
    histogram, chosen, (found, counts) = looked_closer([scores[:cut], scores[cut:]], which)
    edges = histogram.lower_edges().double().numpy()
    occupied = np.flatnonzero(edges[1:] > edges[:-1])
    place = occupied[np.searchsorted(edges[occupied], np.float64(scores), side="right") - 1]
    expected = {}
    for number in np.unique(place):
        inside = np.float64(scores)[place == number]
        if number in chosen:
            expected |= dict(zip(*np.unique(inside, return_counts=True), strict=True))
        else:
            expected[inside.mean()] = len(inside)
    np.testing.assert_allclose(found.numpy(), sorted(expected), rtol=1e-12)
    assert counts.tolist() == [expected[value] for value in sorted(expected)]


def test_a_crowded_bin_is_told_apart():
    scores = torch.cat([torch.tensor([-1e30, 1e30]), 1 + torch.arange(1000) % 300 / 2**20])
    _, chosen, (found, counts) = looked_closer([scores], torch.tensor([1]))
    assert len(chosen) == 1 and found[1:-1].tolist() == (1 + np.arange(300) / 2**20).tolist()
    assert counts.tolist() == [1] + [4] * 100 + [3] * 200 + [1]


def test_chunks_do_not_matter(monkeypatch):
    scores, which = torch.randn(3000, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 20])
    *_, whole = looked_closer([scores], which)
    monkeypatch.setattr("dino_uad.metrics.closer_look.CHUNK", 700)
    *_, chunked = looked_closer([scores], which)
    assert torch.equal(whole[1], chunked[1])
    torch.testing.assert_close(whole[0], chunked[0], rtol=1e-12, atol=0)
