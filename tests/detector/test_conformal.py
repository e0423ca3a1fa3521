"""Conformal p-values against their definition, and what they promise, by simulation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dino_uad.detector.conformal import LEVELS, ConformalTable, scan_scores


def table(scores, groups=None) -> ConformalTable:
    result = ConformalTable()
    scores = torch.as_tensor(np.asarray(scores, dtype=np.float32))
    result.fit(scores, list(range(len(scores))) if groups is None else list(groups))
    return result


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=1), st.lists(st.integers(-1, 10), min_size=1))
def test_p_values_follow_their_definition(calibration, queries) -> None:
    scores, groups = zip(*calibration, strict=True)
    found = table(scores, groups).p_values(torch.tensor(queries, dtype=torch.float32))
    members = {g: [s for s, other in calibration if other == g] for g in groups}
    for query, p in zip(queries, found.tolist(), strict=True):
        mass = sum(np.mean([s >= query for s in group]) for group in members.values())
        assert p == pytest.approx((1 + mass) / (len(members) + 1), rel=1e-6)


def test_the_false_positive_rate_over_1000_splits_is_the_beta_distribution_of_theory() -> None:
    """Given the calibration set, the rate is Beta(l, n + 1 - l) with l = floor(alpha (n + 1)) (Vovk 2012)."""
    rng, n, alpha = np.random.default_rng(0), 80, 0.05
    rates = []
    for _ in range(1000):
        threshold = table(rng.exponential(size=n)).threshold(alpha)
        rates.append(math.exp(-threshold))  # of a new normal score, exactly
    allowed = int(alpha * (n + 1))
    assert stats.kstest(rates, stats.beta(allowed, n + 1 - allowed).cdf).pvalue > 0.01
    assert np.mean(rates) <= alpha


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_at_most_alpha_of_1000_simulated_splits_flag_an_exchangeable_image(alpha: float) -> None:
    rng, n = np.random.default_rng(1), 120
    flagged = 0
    for _ in range(1000):
        scores = rng.lognormal(size=n + 1).astype(np.float32)
        fitted = table(scores[:n])
        flagged += bool(fitted.flagged(float(fitted.p_values(torch.tensor(scores[n:]))[0]), alpha))
    assert stats.binomtest(flagged, 1000, alpha, alternative="greater").pvalue > 0.01
    assert flagged / 1000 > alpha / 3  # not valid by never flagging


def test_slices_of_few_patients_need_their_groups() -> None:
    """Patients differ more than their slices: taken as independent, slices promise what they cannot keep."""
    rng, alpha, patients = np.random.default_rng(2), 0.2, 4
    grouped = pooled = 0
    for _ in range(1000):
        counts = rng.integers(1, 40, patients)
        effects = rng.normal(scale=3, size=patients + 1)
        scores = np.concatenate([rng.normal(e, 1, c) for e, c in zip(effects, counts, strict=False)])
        groups = np.repeat(np.arange(patients), counts)
        new = torch.tensor([rng.normal(effects[-1], 1)], dtype=torch.float32)
        for name, fitted in (("grouped", table(scores, groups)), ("pooled", table(scores))):
            hit = bool(fitted.flagged(float(fitted.p_values(new)[0]), alpha))
            grouped, pooled = grouped + hit * (name == "grouped"), pooled + hit * (name == "pooled")
    assert stats.binomtest(grouped, 1000, alpha, alternative="greater").pvalue > 0.01
    assert stats.binomtest(pooled, 1000, alpha, alternative="greater").pvalue < 0.01


def test_eighty_images_cannot_promise_one_percent() -> None:
    fitted = table(np.arange(80))
    highest = float(fitted.p_values(torch.tensor([1e6]))[0])
    assert highest == pytest.approx(1 / 81) == pytest.approx(fitted.smallest_p)
    assert fitted.flagged(highest, 0.01) is None and fitted.threshold(0.01) == math.inf
    assert fitted.flagged(highest, 0.05) is True and fitted.flagged(0.0501, 0.05) is False
    assert table(np.arange(99)).flagged(0.01, 0.01) is True
    assert fitted.threshold(0.05) == 76  # 77, 78 and 79 lie above: (1 + 3) / 81 <= 0.05


def test_a_table_of_constant_size_rounds_p_values_up() -> None:
    scores = np.random.default_rng(3).normal(size=20_000).astype(np.float32)
    fitted = table(scores)
    queries = np.r_[np.linspace(-5, 5, 999), scores[:500]].astype(np.float32)
    exact = (1 + (scores[None] >= queries[:, None]).sum(1)) / (len(scores) + 1)
    found = fitted.p_values(torch.from_numpy(queries)).numpy()
    assert fitted.levels.shape == (LEVELS,)
    assert (found >= exact * (1 - 1e-6)).all() and (found - exact).max() < 0.003
    lowest = np.sort(scores)[:1]
    assert fitted.p_values(torch.from_numpy(lowest))[0] == 1 and fitted.levels[0] == lowest
    small = exact < 500 / 20_001
    assert found[small] == pytest.approx(exact[small], rel=1e-6)


def test_without_calibration_nothing_is_claimed() -> None:
    empty = ConformalTable()
    assert empty.p_values(torch.tensor([1.0])).isnan().all()
    assert empty.flagged(math.nan, 0.05) is None and empty.threshold(0.05) == math.inf
    assert math.isnan(empty.smallest_p)
    with pytest.raises(ValueError, match="finite"):
        table([1.0, math.nan])


def test_a_scan_is_scored_by_its_highest_slice() -> None:
    scores, names = scan_scores(torch.tensor([1.0, 5.0, 2.0, 4.0]), ["b", "a", "b", "a"])
    assert (scores.tolist(), names) == ([2.0, 5.0], ["b", "a"])
