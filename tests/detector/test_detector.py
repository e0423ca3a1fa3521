"""The detector: what its state holds, and what it refuses to load."""

import pytest
import torch
from monai.networks.utils import copy_model_state

from dino_uad.detector import FREE_RESPONSE, fingerprint, read_threshold
from dino_uad.detector.detector import AnomalyDetector
from dino_uad.heads.anomaly_dino import AnomalyDinoHead
from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.heads.mean_distance import MeanDistanceHead
from dino_uad.heads.spatial_ar import SpatialARHead
from helpers import SIZE, backbone, detector


@pytest.fixture(scope="module")
def fitted():
    network = detector()
    image = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    network.head.fit_batch(*network.embed(image))
    return network


def test_state_dict_leaves_the_backbone_out(fitted):
    own = {key for key in fitted.state_dict() if not key.startswith("normal_scans.")}
    calibration = {"thresholds", "pixel_thresholds", "baseline.highest", "baseline.share"}
    units = {"units.knots", "units.levels", "units.tail"}
    assert own == {"fingerprint", "head.total", "head.count", "fitted_images.digests"} | calibration | units


def test_strict_round_trip_gives_the_same_map(fitted, tmp_path):
    torch.save(fitted.state_dict(), tmp_path / "model.pt")
    other = detector(checkpoint=str(tmp_path / "model.pt"))
    image = torch.rand(1, 3, *SIZE)
    assert torch.equal(other(image), fitted(image))
    assert other(image).shape == (1, 1, *SIZE)


def test_monai_copy_model_state_loads_it(fitted):
    other = detector()
    copy_model_state(other, fitted.state_dict())
    assert torch.equal(other.head.total, fitted.head.total)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"image_size": (28, 28)}, "image_size"),
        ({"preprocessing": {"axcodes": "RAS"}}, "preprocessing"),
    ],
)
def test_state_of_another_setting_is_refused_by_name(fitted, changed, named):
    with pytest.raises(RuntimeError, match=named):
        detector(**changed).load_state_dict(fitted.state_dict())


OTHER_SCORES = [
    (DPMMHead, {"score_type": "likelihood"}),
    (DPMMHead, {"normalize": False}),
    (SpatialARHead, {"combine": "min", "direction": "both"}),
    (SpatialARHead, {"position_calibration": False}),
    (DinoADHead, {"n_support": 3}),
    (DinoADHead, {"similarity": "max"}),
    (DinoADHead, {"normalization": "none"}),
    (DinoADHead, {"support": "random"}),
    (AnomalyDinoHead, {"k_neighbors": 2}),
    (AnomalyDinoHead, {"retrieve": 5}),
]


@pytest.mark.parametrize(("head", "changed"), OTHER_SCORES)
def test_scores_of_other_settings_are_refused_by_name(head, changed):
    """Settings that no tensor of the head shows; thresholds and units hold for the fit's alone."""
    frozen, (name, value) = backbone(), next(iter(changed.items()))
    shared = {key: value for key, value in changed.items() if key != name}
    as_fitted, other = (head(frozen.embed_dim, **settings) for settings in (shared, changed))
    stored = detector(backbone=frozen, head=as_fitted).state_dict()
    network = detector(backbone=frozen, head=other)
    message = rf"head#{name}: the checkpoint was fitted with {getattr(as_fitted, name)!r}, this network has {value!r}"
    with pytest.raises(RuntimeError, match=message):
        network.load_state_dict(stored)
    said = fingerprint.decode(stored["fingerprint"])
    older = {key: value for key, value in said.items() if key not in ("head", "smoothing_sigma")}
    network.load_state_dict(stored | {"fingerprint": fingerprint.encode(older)})  # one that does not say is believed


def test_smoothing_of_another_width_is_refused(fitted):
    with pytest.raises(RuntimeError, match=r"smoothing_sigma: .* fitted with 0\.0, this network has 4\.0"):
        detector(smoothing_sigma=4.0).load_state_dict(fitted.state_dict())


def test_state_of_another_layer_is_refused_even_when_not_strict(fitted):
    other = backbone()
    other.layers = (1,)
    network = AnomalyDetector(other, MeanDistanceHead(other.embed_dim), image_size=SIZE)
    with pytest.raises(RuntimeError, match=r"layers: the checkpoint was fitted with \[0\], this network has \[1\]"):
        network.load_state_dict(fitted.state_dict(), strict=False)


def test_nan_in_a_checkpoint_is_refused(fitted):
    state = {key: value.clone() for key, value in fitted.state_dict().items()}
    state["head.total"][3] = torch.nan
    with pytest.raises(RuntimeError, match=r"head\.total: NaN"):
        detector().load_state_dict(state)


@pytest.mark.parametrize("content", [b"[]", b"3", b'"dpmm"', b"null", b"{", b'{"head": 4}'])
def test_a_damaged_fingerprint_is_refused(fitted, content):
    damaged = torch.zeros(fingerprint.SIZE, dtype=torch.uint8)
    damaged[: len(content)] = torch.tensor(list(content), dtype=torch.uint8)
    with pytest.raises(RuntimeError, match=r"fingerprint cannot be read .*the file is damaged"):
        detector().load_state_dict(dict(fitted.state_dict()) | {"fingerprint": damaged})


def test_foreign_checkpoint_is_refused():
    with pytest.raises(RuntimeError, match="no fingerprint found"):
        detector().load_state_dict({"conv.weight": torch.zeros(1)})


def test_wrong_sizes_say_what_to_use(fitted):
    with pytest.raises(ValueError, match="not a multiple of the 14 px patches"):
        detector(image_size=(50, 56))
    with pytest.raises(ValueError, match="was built for"):
        fitted(torch.rand(1, 1, 28, 28))
    with pytest.raises(ValueError, match="expects 7 channels"):
        detector(head=MeanDistanceHead(7))


def test_unfitted_head_does_not_score():
    with pytest.raises(RuntimeError, match="not fitted"):
        detector()(torch.rand(1, 1, *SIZE))


def test_dropout_acts_in_training_mode_only(fitted):
    network = detector(dropout=0.5)
    network.load_state_dict(fitted.state_dict())
    image = torch.rand(1, 1, *SIZE)
    network.eval()
    assert torch.equal(network(image), fitted(image))
    network.train()
    assert not torch.equal(network(image), network(image))


def fitted_heads():
    yield "mean distance", MeanDistanceHead
    yield "dpmm", lambda channels: DPMMHead(channels, 4)
    yield "spatial_ar", lambda channels: SpatialARHead(channels, hidden=8, dilations=(1,))
    yield "dino_ad", DinoADHead
    yield "anomaly_dino", AnomalyDinoHead


@pytest.mark.parametrize(("name", "make"), fitted_heads())
def test_maps_under_autocast_are_those_without(name, make):
    """The transformer has a precision of its own; nothing after it loses digits to autocast."""
    frozen = backbone()
    network = detector(backbone=frozen, head=make(frozen.embed_dim)).eval()
    image = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    if name == "spatial_ar":
        network.head.batches_seen += 1
    else:
        network.head.fit_batch(*network.embed(image))
        network.head.end_epoch()
    expected = network.predict(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network.predict(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_model_of_version_0_1_keeps_its_thresholds_and_promises_nothing_new(fitted, tmp_path):
    state = {key: value for key, value in fitted.state_dict().items() if not key.startswith("normal_scans.")}
    state["thresholds"] = torch.tensor([1.0, 2.0, 3.0])
    torch.save(state, tmp_path / "model.pt")
    network = detector(checkpoint=str(tmp_path / "model.pt"))
    assert network.thresholds[:3].tolist() == [1, 2, 3] and network.thresholds[3:].isnan().all()
    assert not network.normal_scans.images.calibrated and network.normal_scans.finding_thresholds.isnan().all()
    assert read_threshold(tmp_path / "model.pt", 0.05) == 2
    for point in (0.001, *FREE_RESPONSE):
        with pytest.raises(ValueError, match="dino_uad calibrate"):
            read_threshold(tmp_path / "model.pt", point)
