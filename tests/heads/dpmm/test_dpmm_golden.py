"""Reference mode of the DPMM against the published code's trajectories, in float32 and float64."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from dino_uad.heads.dpmm import gaussian
from dino_uad.heads.dpmm.head import DPMMHead

TRAJECTORIES = [
    "dpmm_diag",
    "dpmm_full",
    "dpmm_spherical",
    "dpmm_diag_exp",
    "dpmm_diag_noupdate",
    "dpmm_diag_alphafixed",
]


def as_embeddings(rows: np.ndarray) -> torch.Tensor:
    """``[N,D]`` rows as one image of N by 1 patches, ``[1,D,N,1]``."""
    return torch.from_numpy(rows).T[None, :, :, None]


def reference_head(arrays: dict, meta: dict, dtype: torch.dtype, score_type: str = "likelihood") -> DPMMHead:
    """A head in the state before batch 0."""
    head = DPMMHead(
        meta["D"],
        n_components=meta["K"],
        covariance=meta["cov_type"],
        schedule=meta["schedule"],
        step_size=meta["update_rate"] or 1.0,
        concentration=meta["alpha0"],
        learn_concentration=not meta["alpha_fixed"],
        weight_threshold=meta["weight_threshold"],
        reg_covar=meta["reg_covar"],
        normalize=False,
        score_type=score_type,
        reference=True,
    ).to(dtype)
    v = arrays["init_v"].astype(np.float64)
    variances = torch.from_numpy(arrays["init_var"])
    state = head.state_dict()
    state["log_weights"] = torch.from_numpy(np.log(v) + np.concatenate([[0], np.log1p(-v[:-1]).cumsum()]))
    state["running_means"] = torch.from_numpy(arrays["init_mean"])
    state["running_covariances"] = torch.diag_embed(variances) if meta["cov_type"] == "full" else variances
    state["rows_per_batch"] = torch.tensor(meta.get("n_per_batch", [1])[0])
    head.load_state_dict(state)
    return head


def observed(head: DPMMHead, cov_type: str) -> dict[str, np.ndarray]:
    """The head's state under the golden files' names."""
    resp, means = head.resp_mean.double(), head.running_means.double()
    weights, components = head.log_weights.double().exp(), head.components
    before = torch.cat([torch.ones(1), 1 - weights.cumsum(0)[:-1]])
    raw = head.running_covariances.double()
    names = {"resp_stat": resp, "mean": components.means, "v": weights / before, "alpha": head.concentration}
    names["mean_stat"] = resp[:, None] * means
    if cov_type == "full":
        raw = raw - head.reg_covar * torch.eye(raw.shape[-1])
        names["cov"] = components.covariances
        names["cov_stat"] = resp[:, None, None] * (raw + means[:, :, None] * means[:, None, :])
    else:
        names["var"] = components.covariances
        names["cov_stat_diag"] = resp[:, None] * (raw - head.reg_covar + means.square())
    return {name: value.numpy() for name, value in names.items()}


def assert_as_close_as(meta: dict, name: str, actual, expected, dtype: torch.dtype) -> None:
    """Float32 may deviate 8 times as far as the published code's one float32 run did; float64 by rounding."""
    if dtype == torch.float64:
        np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-9, err_msg=name)
        return
    finite = np.isfinite(expected)
    assert np.array_equal(np.isfinite(actual), finite), name
    actual, expected = np.asarray(actual)[finite], np.asarray(expected)[finite]
    absolute, relative = np.abs(actual - expected), np.abs(actual - expected) / (1e-3 + np.abs(expected))
    within = (absolute <= 8 * meta["max_abs_dev_f32_vs_f64"][name]) | (
        relative <= 8 * meta["max_rel_dev_f32_vs_f64"][name]
    )
    assert within.all(), f"{name}: off by {absolute.max():.2e} absolute, {relative.max():.2e} relative"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_every_step_of_the_trajectory(golden, name, dtype):
    arrays, meta = golden(name)
    prefix = "f64_" if dtype == torch.float64 else ""
    head = reference_head(arrays, meta, dtype)
    for step, n_rows in enumerate(meta["n_per_batch"]):
        batch = arrays[f"batch_{step}"]
        assert len(batch) == n_rows
        expected = arrays.get(f"{prefix}log_resp_step{step + 1}")
        if expected is not None:
            joint = gaussian.log_joint(torch.from_numpy(batch).to(dtype), head.components)
            assert_as_close_as(meta, f"log_resp_step{step + 1}", log_softmax(joint.numpy(), 1), expected, dtype)
        head.fit_batch(as_embeddings(batch))
        for key, value in observed(head, meta["cov_type"]).items():
            expected = arrays[prefix + key][step]
            if key == "cov_stat_diag" and meta["cov_type"] == "spherical":
                value, expected = value.mean(1), expected.mean(1)
            if key == "v":  # not stored: taken from differences of float32 log weights
                np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
            else:
                assert_as_close_as(meta, key, value, expected, dtype)
    assert_as_close_as(meta, "final_pi", head.weights(), arrays[prefix + "final_pi"], dtype)
    assert_as_close_as(meta, "final_log_pi", head.log_weights, arrays[prefix + "final_log_pi"], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_scores_of_the_final_model(golden, name, dtype):
    arrays, meta = golden(name)
    prefix = "f64_test_" if dtype == torch.float64 else "test_"
    test = as_embeddings(arrays["test"])
    fitted = reference_head(arrays, meta, dtype)
    for step in range(len(meta["n_per_batch"])):
        fitted.fit_batch(as_embeddings(arrays[f"batch_{step}"]))
    expected = {
        "likelihood": ("log_lik", -1),
        "cosine": ("cosine_distance", 1),
        "euclidean": ("euclidean_distance", 1),
        "mahalanobis": ("mahalanobis_distance", 1),
    }
    for score_type, (key, sign) in expected.items():
        head = reference_head(arrays, meta, dtype, score_type)
        head.load_state_dict(fitted.state_dict())
        score = sign * head.score(test).flatten().numpy()
        assert_as_close_as(meta, f"test_{key}", score, arrays[prefix + key], dtype)
    assert np.array_equal(fitted.assign(test).flatten(), arrays[prefix + "argmax_component"])


def test_reference_leaves_underflowing_sticks_out_and_the_default_does_not(golden):
    arrays, meta = golden("dpmm_diag_largeK")
    head = reference_head(arrays, meta, torch.float32)
    head.log_weights.copy_(torch.from_numpy(arrays["init_log_pi"]))
    assert np.array_equal(head.log_weights.exp() > 0, arrays["alive_first_estep"])
    for step in range(4):
        head.fit_batch(as_embeddings(arrays[f"batch_{step}"]))
        np.testing.assert_allclose(head.resp_mean, arrays["resp_stat"][step], rtol=2e-4, atol=1e-7)
        np.testing.assert_allclose(head.components.means, arrays["mean"][step], atol=2e-4)
        np.testing.assert_allclose(head.components.covariances, arrays["var"][step], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(head.concentration, arrays["alpha"][step], rtol=1e-5)
    np.testing.assert_allclose(head.weights(), arrays["final_pi"], rtol=2e-4, atol=1e-7)
    test = as_embeddings(arrays["test"])
    np.testing.assert_allclose(-head.score(test).flatten(), arrays["test_log_lik"], rtol=1e-4, atol=1e-3)
    assert np.array_equal(head.assign(test).flatten(), arrays["test_argmax_component"])
    cosine = reference_head(arrays, meta, torch.float32, "cosine")
    cosine.load_state_dict(head.state_dict())
    np.testing.assert_allclose(cosine.score(test).flatten(), arrays["test_cosine_distance"], atol=1e-5)

    late = torch.from_numpy(~arrays["alive_first_estep"])
    components = gaussian.Components(*(torch.from_numpy(arrays[f"init_{key}"]) for key in ("log_pi", "mean", "var")))
    joint = gaussian.log_joint(torch.from_numpy(arrays["batch_0"]), components)
    assert torch.isfinite(joint[:, late]).all()


def test_first_rows_initialisation_permutes_the_first_rows(golden):
    arrays, meta = golden("dpmm_diag")
    assert sorted(arrays["init_row_index"]) == list(range(meta["K"]))
    head = DPMMHead(meta["D"], n_components=meta["K"], init="first_rows", normalize=False)
    rows = torch.from_numpy(arrays["batch_0"])
    head._initialise(rows)
    order = torch.cdist(head.running_means, rows).argmin(1).tolist()
    assert sorted(order) == list(range(meta["K"]))
    np.testing.assert_allclose(head.running_covariances, arrays["init_var"], rtol=1e-5)
