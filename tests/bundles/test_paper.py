"""A ``paper.json`` is the published method: no step of ours, and heads that the golden vectors hold."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from dino_uad.detector.fingerprint import BEFORE
from dino_uad.heads.anomaly_dino import AnomalyDinoHead
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.overrides import check_override

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/paper.json"))
GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def network(bundle: str, *files: str) -> dict:
    configs = [BUNDLES / bundle / "configs" / file for file in files]
    return ConfigParser.load_config_files([str(path) for path in configs])["network_def"]


@pytest.mark.parametrize("bundle", NAMES)
@pytest.mark.parametrize("file", ["train.json", "inference.json"])
def test_every_step_of_ours_is_off(bundle, file):
    ours, paper = network(bundle, file), network(bundle, file, "paper.json")
    for step, off in BEFORE.items():
        where = "backbone" if step == "joined" else None
        assert (paper[where] if where else paper)[step] == off
        assert (ours[where] if where else ours)[step] != off


@pytest.mark.parametrize("bundle", NAMES)
def test_it_overrides_what_there_is_and_trains_what_it_infers(bundle):
    for key, value in json.loads((BUNDLES / bundle / "configs" / "paper.json").read_text()).items():
        if key.startswith("network_def#"):
            check_override(key, value, ConfigParser.load_config_file(BUNDLES / bundle / "configs" / "train.json"))
    train, inference = (network(bundle, file, "paper.json") for file in ("train.json", "inference.json"))
    assert {key: value for key, value in inference["head"].items() if train["head"].get(key) != value} == {}


PUBLISHED = {  # as the papers have them
    "anomaly_dino": {"backbone": {"arch": "dinov2_vits14", "layers": [-1]}, "smoothing_sigma": 4.0},
    "dino_ad": {"backbone": {"arch": "dinov3_vits16"}, "head": {"n_clusters": 2, "normalization": "minmax"}},
    "dpmm": {"backbone": {"arch": "dinov2_vits14", "layers": [-1]}, "head": {"n_components": 500, "reg_covar": 1e-6}},
    "spatial_ar": {
        "backbone": {"arch": "dinov3_vits16", "layers": [-1]},
        "head": {"hidden": 256, "dilations": [4] * 4, "covariance": "unit", "position_calibration": False},
    },
}
TRAINED = {"spatial_ar": (64, 40, 1e-3), "dpmm": (12, 40, None)}


@pytest.mark.parametrize("bundle", NAMES)
def test_its_settings_are_the_published_ones(bundle):
    for file in ("train.json", "inference.json"):
        found = network(bundle, file, "paper.json")
        for key, value in PUBLISHED[bundle].items():
            assert (value if not isinstance(value, dict) else found[key] | value) == found[key]
    if bundle in TRAINED:
        configs = [str(BUNDLES / bundle / "configs" / file) for file in ("train.json", "paper.json")]
        config = ConfigParser.load_config_files(configs)
        batch_size = config["train"]["dataloader"]["batch_size"]
        batch_size = config[batch_size[1:]] if isinstance(batch_size, str) else batch_size
        assert (batch_size, config["max_epochs"], config.get("learning_rate")) == TRAINED[bundle]


def head_settings(bundle: str) -> dict:
    """The head's settings without those that a run fills in."""
    settings = network(bundle, "train.json", "paper.json")["head"]
    return {key: value for key, value in settings.items() if key not in ("_target_", "embed_dim", "seed", "views")}


def rows_as_image(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows).T[None, :, :, None]


def test_the_dpmm_of_the_paper_follows_the_published_trajectory():
    arrays = np.load(GOLDEN / "dpmm_diag_shared.npz")
    meta = json.loads(str(arrays["meta_json"]))
    settings = head_settings("dpmm")
    assert (settings["n_components"], settings["init"], settings["reg_covar"]) == (500, "first_rows", meta["reg_covar"])
    # The golden run is smaller and its rows are of any length.
    head = DPMMHead(meta["D"], **settings | {"n_components": meta["K"], "normalize": False})
    v = arrays["init_v"].astype(np.float64)
    state = head.state_dict()
    state["log_weights"] = torch.from_numpy(np.log(v) + np.concatenate([[0], np.log1p(-v[:-1]).cumsum()])).float()
    state["running_means"] = torch.from_numpy(arrays["init_mean"])
    state["running_covariances"] = torch.from_numpy(arrays["init_var"])
    state["rows_per_batch"] = torch.tensor(len(arrays["batch_0"]))
    head.load_state_dict(state)
    for step in range(8):
        head.fit_batch(rows_as_image(arrays[f"batch_{step}"]))
    np.testing.assert_allclose(head.components.means, arrays["mean"][-1], rtol=0, atol=2e-3)
    found = head.score(rows_as_image(arrays["test"])).flatten()
    np.testing.assert_allclose(found, arrays["test_cosine_distance"], rtol=0, atol=2e-3)


def test_the_search_of_the_paper_finds_the_published_distances():
    arrays = np.load(GOLDEN / "anomalydino_knn_shared.npz")
    head = AnomalyDinoHead(arrays["bank"].shape[1], **head_settings("anomaly_dino"))
    head.fit_batch(rows_as_image(arrays["bank"]))
    head.end_epoch()
    found = head.score(rows_as_image(arrays["query"])).flatten()
    np.testing.assert_allclose(found, arrays["L2_normalized_k1_distance"], rtol=0, atol=2e-5)
