"""The corrected DPMM: likelihood, invariants, numerics, shards, resuming and scores, against closed forms and scipy."""

import copy
import pickle

import numpy as np
import pytest
import torch
from dpmm_mixtures import clusters, fitted_head, images, multivariate_normal_log_joint
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import digamma, logsumexp
from sklearn.mixture import BayesianGaussianMixture

from dino_uad.heads.dpmm import sticks
from dino_uad.heads.dpmm.head import DPMMHead
from dino_uad.heads.dpmm.init import kmeans_plus_plus


def assert_valid(head: DPMMHead) -> None:
    assert all(torch.isfinite(value).all() for name, value in head.state_dict().items() if name != "log_weights")
    assert not torch.isnan(head.log_weights).any()
    assert float(head.log_weights.double().exp().sum()) <= 1 + 1e-5
    assert float(head.weights().sum()) == pytest.approx(1, abs=1e-5)
    covariances = head.components.covariances
    variances = covariances.diagonal(dim1=1, dim2=2) if covariances.ndim == 3 else covariances
    assert (variances > 0).all()
    assert head.n_active > 0


@pytest.mark.parametrize("covariance", ["diag", "full", "spherical"])
def test_full_batch_likelihood_never_decreases(covariance):
    rows = clusters(1500, 6)
    head = DPMMHead(6, 20, covariance, step_size=1.0, normalize=False, learn_concentration=False, concentration=1.0)
    # With α = 1 the prior of the sticks is flat, so EM maximises the likelihood itself, but for reg_covar.
    history = [head.fit_batch(images(rows))["log_likelihood"] for _ in range(40)]
    assert np.diff(history).min() > -2e-4
    assert history[-1] > history[0] + 0.5


def test_held_out_likelihood_is_comparable_with_scikit_learn():
    rows = clusters(3000, 8, n_clusters=8)
    train, test = rows[:2000], rows[2000:]
    peer = BayesianGaussianMixture(
        n_components=20,
        covariance_type="diag",
        weight_concentration_prior_type="dirichlet_process",
        max_iter=200,
        random_state=0,
    ).fit(train.numpy())
    head = fitted_head(train, 60, n_components=20, step_size=1.0, normalize=False)
    assert float(head.log_likelihood(images(test))) > peer.score(test.numpy()) - 0.1


def test_streaming_separates_outliers():
    rows = clusters(4096, 32, n_clusters=5, spread=0.05)
    head = DPMMHead(32, n_components=60)
    for epoch in range(4):
        for batch in rows[torch.randperm(4096, generator=torch.Generator().manual_seed(epoch))].split(1024):
            head.fit_batch(images(batch, 32))
    assert float(head.score(images(rows)).max()) < 0.05
    outliers = torch.randn(100, 32, generator=torch.Generator().manual_seed(1))
    assert float(head.score(images(outliers)).min()) > 0.1


@settings(max_examples=40)
@given(
    covariance=st.sampled_from(["diag", "full", "spherical"]),
    init=st.sampled_from(["kmeans++", "random", "first_rows"]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    n_rows=st.integers(1, 40),
    n_distinct=st.integers(1, 40),
    normalize=st.booleans(),
    concentration=st.floats(0.01, 10),
    seed=st.integers(0, 1000),
)
def test_invariants(covariance, init, scale, n_rows, n_distinct, normalize, concentration, seed):
    rows = clusters(n_distinct, 5, seed=seed)[torch.arange(n_rows) % n_distinct] * scale
    head = DPMMHead(5, 15, covariance, init=init, normalize=normalize, concentration=concentration, seed=seed)
    for _ in range(6):
        assert np.isfinite(head.fit_batch(images(rows.half()))["log_likelihood"])
        assert_valid(head)
    assert torch.isfinite(head.log_likelihood(images(rows))).all()
    assert torch.isfinite(head.score(images(rows))).all()


def test_long_runs_stay_finite():
    rows = torch.cat([clusters(50, 4) * 1e3, torch.zeros(10, 4), torch.ones(30, 4)])
    head = fitted_head(rows, 1000, n_components=10, normalize=False)
    assert_valid(head)
    for score_type in ("cosine", "likelihood", "euclidean", "mahalanobis"):
        other = DPMMHead(4, 10, normalize=False, score_type=score_type)
        other.load_state_dict(head.state_dict())
        assert torch.isfinite(other.score(images(rows))).all()


@pytest.mark.parametrize("covariance", ["diag", "full", "spherical"])
def test_long_run_agrees_with_float64(covariance):
    rows = clusters(800, 6)
    single, double = (
        DPMMHead(6, 10, covariance, normalize=False, reg_covar=1e-3).to(t) for t in (torch.float, torch.double)
    )
    for step in range(200):
        batch = images(rows[(step % 4) * 200 :][:200])
        single.fit_batch(batch), double.fit_batch(batch)
    np.testing.assert_allclose(single.weights(), double.weights(), atol=2e-3)
    np.testing.assert_allclose(single.log_likelihood(images(rows)), double.log_likelihood(images(rows)), atol=1e-3)
    np.testing.assert_allclose(single.score(images(rows)), double.score(images(rows)), atol=1e-3)


@pytest.mark.parametrize("covariance", ["diag", "full", "spherical"])
def test_scores_agree_with_scipy(covariance):
    rows, test = clusters(600, 5), clusters(40, 5, seed=3)
    scores = {}
    for score_type in ("cosine", "likelihood", "euclidean", "mahalanobis"):
        head = fitted_head(rows, covariance=covariance, score_type=score_type, normalize=False, weight_threshold=0.02)
        scores[score_type] = head.score(images(test, 4)).numpy().reshape(-1)
    active = head.weights() > 0.02
    assert 0 < head.n_active == int(active.sum()) < 12
    components = head.components._replace(log_weights=head.weights().log()).select(active)
    means, points = components.means.double().numpy(), test.double().numpy()
    joint = multivariate_normal_log_joint(test, components)
    matrices = components.covariances.double().numpy()
    matrices = matrices if covariance == "full" else np.stack([np.diag(row) for row in matrices])
    mahalanobis = [
        cdist(points, mean[None], "mahalanobis", VI=np.linalg.inv(c)) for mean, c in zip(means, matrices, strict=True)
    ]
    np.testing.assert_allclose(scores["cosine"], cdist(points, means, "cosine").min(1), atol=1e-6)
    np.testing.assert_allclose(scores["euclidean"], cdist(points, means).min(1), rtol=1e-5)
    np.testing.assert_allclose(scores["mahalanobis"], np.min(mahalanobis, 0)[:, 0], rtol=1e-5)
    np.testing.assert_allclose(scores["likelihood"], -logsumexp(joint, 1), rtol=1e-5)
    np.testing.assert_allclose(head.log_likelihood(images(test)), logsumexp(joint, 1).mean(), rtol=1e-5)
    expected = torch.nonzero(active).squeeze(1).numpy()[joint.argmax(1)]
    assert np.array_equal(head.assign(images(test, 4)).reshape(-1), expected)


@pytest.mark.parametrize("schedule", ["ema", "exp"])
def test_resuming_is_bit_identical(schedule):
    batches = [images(batch) for batch in clusters(900, 6).split(150)]
    straight = DPMMHead(6, 12, schedule=schedule, step_size=0.6)
    for batch in batches:
        straight.fit_batch(batch)
    first, second = (DPMMHead(6, 12, schedule=schedule, step_size=0.6) for _ in range(2))
    for batch in batches[:3]:
        first.fit_batch(batch)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.n_active == first.n_active
    for batch in batches[3:]:
        second.fit_batch(batch)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_stick_weights_and_concentration_follow_the_formulas():
    resp, alpha, n_rows = np.array([0.5, 0.0, 0.3, 1e-9, 0.15]), 2.5, 100
    later = resp.sum() - resp.cumsum()
    v = resp / (resp + (alpha - 1) / n_rows + later)
    with np.errstate(divide="ignore"):
        expected = np.log(v) + np.concatenate([[0], np.log1p(-v[:-1]).cumsum()])
    actual = sticks.log_stick_weights(torch.from_numpy(resp), torch.tensor(alpha), n_rows)
    np.testing.assert_allclose(actual, expected, rtol=1e-9)
    counts = n_rows * resp
    rest = digamma(alpha + n_rows * later) - digamma(1 + alpha + counts + n_rows * later)
    updated = sticks.update_concentration(torch.tensor(alpha).double(), torch.from_numpy(resp), n_rows)
    assert float(updated) == pytest.approx(-4 / rest[:-1].sum(), rel=1e-9)


def test_small_concentration_gives_no_ratio_above_one():
    resp = torch.tensor([0.9, 0.1, 1e-20, 0.0])
    weights = sticks.log_stick_weights(resp, torch.tensor(0.1), 100).exp()
    torch.testing.assert_close(weights, resp)


def test_late_sticks_stay_finite():
    log_weights = sticks.sample_log_weights(2000, 2.0, torch.Generator().manual_seed(0))
    assert torch.isfinite(log_weights).all()
    assert float(log_weights.exp().sum()) == pytest.approx(1)
    assert float(log_weights[-1]) < -500


def test_kmeans_plus_plus_covers_every_cluster_and_survives_duplicates():
    centers = 10 * torch.eye(5)
    rows = centers.repeat_interleave(100, 0)
    drawn = kmeans_plus_plus(rows, 5, torch.Generator().manual_seed(0))
    assert sorted(drawn.argmax(1).tolist()) == [0, 1, 2, 3, 4]
    assert kmeans_plus_plus(rows[:1], 7, torch.Generator().manual_seed(0)).shape == (7, 5)


def test_smaller_last_batch_does_not_move_the_weights_of_equal_statistics():
    rows = clusters(600, 4, n_clusters=3)
    full, small = fitted_head(rows, 3), fitted_head(rows, 3)
    full.fit_batch(images(rows.repeat(2, 1)))
    small.fit_batch(images(rows))
    torch.testing.assert_close(full.log_weights, small.log_weights, rtol=1e-4, atol=1e-4)
    assert int(full.rows_per_batch) == 600


def test_mask_selects_rows():
    rows = clusters(400, 4)
    mask = torch.zeros(1, 1, 1, 400, dtype=torch.bool)
    mask[..., :250] = True
    masked, plain = DPMMHead(4, 8), DPMMHead(4, 8)
    noisy = rows.clone()
    noisy[250:] = float("nan")
    masked.fit_batch(images(noisy), mask=mask)
    plain.fit_batch(images(rows[:250]))
    torch.testing.assert_close(masked.log_weights, plain.log_weights)
    expected = plain.log_likelihood(images(rows[:250]))
    torch.testing.assert_close(plain.log_likelihood(images(rows), mask=mask), expected)
    assert plain.log_likelihood(images(rows), mask=torch.zeros_like(mask)).tolist() == [0]


def test_batches_without_rows_change_nothing():
    head = fitted_head(clusters(100, 4))
    before = copy.deepcopy(head.state_dict())
    assert head.fit_batch(torch.zeros(0, 4, 3, 3)) == {}
    assert head.fit_batch(torch.zeros(2, 4, 3, 3), mask=torch.zeros(2, 1, 3, 3, dtype=torch.bool)) == {}
    assert all(torch.equal(value, head.state_dict()[name]) for name, value in before.items())
    assert head.score(torch.zeros(0, 4, 3, 3)).shape == (0, 1, 3, 3)
    assert head.log_likelihood(torch.zeros(0, 4, 3, 3)).shape == (0,)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("score_type", ["cosine", "likelihood", "euclidean", "mahalanobis"])
def test_score_traces_and_takes_half_precision(score_type):
    rows = clusters(64, 4)
    head = fitted_head(rows, score_type=score_type)
    traced = torch.jit.trace(lambda embeddings: head.score(embeddings), images(rows, 8))
    other = torch.cat([images(clusters(80, 4, seed=5), 8)] * 2)
    torch.testing.assert_close(traced(other), head.score(other))
    assert head.score(other.half()).dtype == torch.float32


def test_a_fitted_head_can_be_pickled():
    head = fitted_head(clusters(64, 4))
    copied = pickle.loads(pickle.dumps(head))
    copied.load_state_dict(head.state_dict())
    assert torch.equal(copied.active, head.active)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_unusable_embeddings_are_an_error(value):
    embeddings = images(clusters(20, 4))
    embeddings[0, 1, 0, 3] = value
    with pytest.raises(ValueError, match="embeddings hold NaN, infinite or larger values"):
        DPMMHead(4).fit_batch(embeddings)


def test_an_epoch_without_a_patch_is_an_error():
    head = DPMMHead(4, 2)
    assert head.fit_batch(torch.ones(2, 4, 3, 3), mask=torch.zeros(2, 1, 3, 3, dtype=torch.bool)) == {}
    with pytest.raises(RuntimeError, match="DPMM was given no patch: check the training images and their foreground"):
        head.end_epoch()


def test_a_threshold_above_all_weights_is_an_error():
    head = DPMMHead(4, 8, weight_threshold=0.999)
    head.fit_batch(images(clusters(20, 4)))
    with pytest.raises(ValueError, match=r"weight_threshold is 0\.999; expected less than the largest weight 0\.\d+$"):
        head.end_epoch()


def test_clear_errors():
    with pytest.raises(RuntimeError, match=r"not fitted: run train first or load models/model\.pt"):
        DPMMHead(4).score(torch.zeros(1, 4, 2, 2))
    with pytest.raises(ValueError, match=r"shape \[1, 5, 2, 2\], expected \[B,4,h,w\]"):
        DPMMHead(4).fit_batch(torch.zeros(1, 5, 2, 2))
    for options in ({"covariance": "tied"}, {"step_size": 0}, {"n_components": 1}, {"reg_covar": 0}, {"init": "x"}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
            DPMMHead(4, **options)
