"""What else runs on a GPU, on the pretended one: other settings, the Python interface, and every verb that computes."""

import functools
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import dino_uad
from devices.absent_gpu import absent_gpu
from devices.rules import GPU, side
from dino_uad.calibrate import calibrate
from dino_uad.compare.run import compare
from dino_uad.distill.command import distill
from dino_uad.engines.batched_zero_shot import zero_shot
from dino_uad.heads.anomaly_dino import AnomalyDinoHead, encode_rows
from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.heads.dpmm.scores import SCORES
from dino_uad.heads.spatial_ar import SpatialARHead
from helpers import backbone, detector, labelled_pictures, load_unit, pictures
from scans import write_nifti
from workflows import BUNDLES, METHODS, TINY, run

FULL = {**METHODS["dpmm"], "network_def#head#covariance": "full"}
DEVICE = "cuda:0"


def test_full_covariance_is_fitted_loaded_and_calibrated(tmp_path):
    with absent_gpu():
        run("dpmm", tmp_path, device=f"$torch.device('{DEVICE}')", **FULL)
        overrides = {key.replace("#", "__"): value for key, value in (TINY | FULL).items()}
        model = dino_uad.load(BUNDLES / "dpmm", device=DEVICE, ckpt_dir=str(tmp_path / "models"), **overrides)
        assert model.network.head.running_covariances.is_cuda
        found = model(tmp_path / "data/test/Ungood/img/u0.png")
        backbone = {key: value for key, value in TINY.items() if key.startswith("network_def")}
        files = str(tmp_path / "data/valid"), str(BUNDLES / "dpmm"), str(tmp_path / "models/model.pt")
        result = calibrate(*files, device=DEVICE, **backbone, **FULL)
    assert np.isfinite(found.anomaly_map).all() and result["before"] == result["after"]


FAISS = [{"index": "faiss"}] if find_spec("faiss") else []
SETTINGS = {
    "dpmm": (DPMMHead, [{"score_type": score, "covariance": "spherical"} for score in SCORES]),
    "published dpmm": (DPMMHead, [{"reference": True, "init": init} for init in ("random", "first_rows")]),
    "dino_ad": (DinoADHead, [{"similarity": "max", "normalization": "none"}, {}]),
    "anomaly_dino": (AnomalyDinoHead, [{"foreground": "pca"}, {"shots": 2, "k_neighbors": 3}, *FAISS]),
    "spatial_ar": (SpatialARHead, [{"direction": "both", "covariance": "full", "standardize": True}, {}]),
}
SMALLER = {DPMMHead: {"n_components": 4}, DinoADHead: {"n_clusters": 2}, SpatialARHead: {"hidden": 8}}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_heads_with_deterministic_algorithms(name, deterministic):
    kind, choices = SETTINGS[name]
    for settings in choices:
        with absent_gpu():
            head = kind(16, **SMALLER.get(kind, {}) | settings).to(DEVICE)
            embeddings, cls, inside = (torch.rand(s).to(DEVICE) for s in ((3, 16, 6, 6), (3, 16), (3, 1, 6, 6)))
            batch = embeddings, cls, inside > 0.2
            if kind is SpatialARHead:
                head(head.standardized(embeddings))  # in training, of which it takes note
                if head.density is not None:
                    head.eval().measure_residuals(embeddings, batch[2])
                    head.end_measuring()
            else:
                head.fit_batch(*batch)
                head.end_epoch()
            head.calibrate_batch(*batch)
            head.end_calibration()
            assert head.score(*batch).is_cuda and head.log_likelihood(*batch).is_cuda, settings


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_mixed_precision(tmp_path):
    more = {"network_def#backbone#precision": "bfloat16", "device": f"$torch.device('{DEVICE}')"}
    with absent_gpu():
        run("spatial_ar", tmp_path, amp=True, **more)
        run("spatial_ar", tmp_path, "evaluate", **more, **{"validate#evaluator#amp": True})
    assert (tmp_path / "evaluate/metrics.json").exists()


def test_volumes_are_fitted_inferred_and_evaluated(tmp_path):
    numbers = np.random.default_rng(0)
    for name in ("train/a", "train/b", "valid/c", "test/d", "test/e"):
        write_nifti(tmp_path / f"data/{name}.nii.gz", numbers.integers(20, 200, (40, 44, 5)).astype(np.float32))
    mask = np.zeros((40, 44, 5), np.uint8)
    mask[10:20, 10:20, 2] = 1
    write_nifti(tmp_path / "data/test/e_label.nii.gz", mask)
    with absent_gpu():
        for kind in ("train", "inference", "evaluate"):
            run("dpmm", tmp_path, kind, device=f"$torch.device('{DEVICE}')")
    assert (tmp_path / "evaluate/metrics.json").exists()
    assert len(list((tmp_path / "inference").glob("*_anomaly.nii*"))) == 5


def test_comparison_with_its_baselines(tmp_path):
    labelled_pictures(tmp_path / "data")
    asked = {"bundles": "dino_ad:n_clusters=1", "backbones": "dino_uad_tiny14:random", "image_size": 56, "epochs": 1}
    with absent_gpu():
        table = compare(str(tmp_path / "data"), out=str(tmp_path / "out"), permutations=20, device=DEVICE, **asked)
    assert [row["method"] for row in table["rows"]] == [
        "dino_ad n_clusters=1",
        "mean_distance",
        "brightness",
        "intensity",
    ]


def test_zero_shot(tmp_path):
    with absent_gpu() as gpu:
        found = zero_shot(pictures(tmp_path, 3), load_unit, lambda item: item, backbone(), device=DEVICE)
    assert len(found) == 3 and gpu.count("to the GPU") > 0


def test_distillation(tmp_path):
    labelled_pictures(tmp_path / "data")
    asked = {"teacher": "dinov2_vits14", "image_size": 56, "steps": 2, "batch_size": 4}
    with absent_gpu(), pytest.MonkeyPatch.context() as patched:
        teacher = functools.partial(dino_uad.backbones.DinoBackbone, weights="random")
        patched.setattr("dino_uad.distill.command.DinoBackbone", teacher)
        path = distill(str(tmp_path / "data/train"), str(tmp_path / "out"), device=DEVICE, **asked)
    assert all(torch.isfinite(value).all() for value in dino_uad.backbones.read_checkpoint(path).values())


class Banks(TorchFunctionMode):
    """Names what makes a tensor on the GPU with as many numbers as a bank has, or more."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers, self.made = numbers, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and side(result) == GPU and result.numel() >= self.numbers:
            known = [arg.data_ptr() for arg in args if isinstance(arg, torch.Tensor)]
            if result.data_ptr() not in known:
                self.made.append(func.__name__)
        return result


@pytest.mark.parametrize("retrieve", [None, 2])
def test_there_is_one_bank_on_the_device(retrieve, tmp_path):
    frozen = backbone()
    rows = torch.randn(3 * 65536 // 2, frozen.embed_dim, generator=torch.Generator().manual_seed(0))
    made = detector(backbone=frozen, head=AnomalyDinoHead(frozen.embed_dim, retrieve=retrieve))
    made.head.bank = encode_rows(rows)
    made.head.class_tokens, made.head.ends = rows[:6].half(), torch.arange(1, 7) * (len(rows) // 6)
    torch.save(made.state_dict(), tmp_path / "model.pt")
    with absent_gpu(), Banks(rows.numel()) as banks:
        head = AnomalyDinoHead(frozen.embed_dim, retrieve=retrieve)
        network = detector(backbone=frozen, head=head, checkpoint=tmp_path / "model.pt").to(DEVICE)
        network.predict(torch.rand(2, 1, 56, 56).to(DEVICE))
    assert banks.made == ["to"], "the bank goes to the device once, and nothing of its size is made there"
