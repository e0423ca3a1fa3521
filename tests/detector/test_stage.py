"""The steps of the detector together: fitted, calibrated, applied and exported alike."""

import io

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dino_uad.detector.operating_points import FALSE_POSITIVE_RATES
from dino_uad.handlers.calibration import calibrate
from dino_uad.heads.neighbourhood import box_mean, neighbourhood_mean
from helpers import SIZE, detector

STAGE = {"foreground": "auto", "neighbourhood": 3, "baseline": 0.5, "units": True}


def bodies(count, seed=0):
    """Squares of texture in the dark, ``[B,1,H,W]``."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.02 * torch.rand(count, 1, *SIZE, generator=generator)
    images[..., 14:42, 14:42] = 0.5 + 0.5 * torch.rand(count, 1, 28, 28, generator=generator)
    return images


def batch(network, images):
    embeddings, cls = network.embed(images)
    return {"embedding": embeddings, "cls": cls, "foreground": network.find_foreground(images)}


def fitted(**options):
    network = detector(**{**STAGE, **options}).eval()
    record = batch(network, bodies(6))
    network.head.fit_batch(network.prepare(record["embedding"]), record["cls"], network.mask(record["foreground"]))
    calibrate(network, [batch(network, bodies(8, seed=1))], "cpu")
    return network


@pytest.fixture(scope="module")
def network():
    return fitted()


def test_predict_says_all_that_is_known(network):
    found = network.predict(bodies(2, seed=2))
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        "pred": (2, 1, *SIZE),
        "patch_scores": (2, 1, 4, 4),
        "raw_scores": (2, 1, 4, 4),
        "foreground": (2, 1, 4, 4),
        "image_score": (2,),
    }
    assert found["foreground"][0, 0].int().tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_the_background_is_below_every_threshold(network):
    found = network.predict(bodies(4, seed=3))
    outside = ~network.inside(found["foreground"])
    assert (found["pred"][outside] == 0).all() and (network.thresholds > 0).all()
    raw = fitted(units=False)
    found = raw.predict(bodies(4, seed=3))
    assert (found["pred"][outside] < raw.thresholds.min()).all()


def test_thresholds_hold_their_rates_in_the_foreground_and_over_all_pixels(network):
    found = network.predict(bodies(8, seed=1))  # the validation images
    inside = found["pred"][network.inside(found["foreground"])]
    for rate, own, every in zip(FALSE_POSITIVE_RATES, network.thresholds, network.pixel_thresholds, strict=True):
        assert (inside >= own).double().mean() <= rate
        assert (found["pred"] >= every).double().mean() <= rate
    assert (network.pixel_thresholds <= network.thresholds).all()  # a quarter of the pixels is foreground


def test_a_share_that_the_fit_learned_is_in_the_model_file():
    network = fitted(baseline="auto")
    assert float(network.baseline.share) != 0.5 and network.facts["baseline"] == "auto"
    other = detector(**{**STAGE, "baseline": "auto"}).eval()
    other.load_state_dict(network.state_dict())
    image = bodies(2, seed=2)
    assert torch.equal(other(image), network(image))


def test_a_file_from_before_shares_were_learned_is_read(network):
    state = network.state_dict()
    del state["baseline.share"]
    other = detector(**STAGE).eval()
    other.load_state_dict(state)
    assert torch.equal(other(bodies(2, seed=2)), network(bodies(2, seed=2)))


def test_every_step_that_is_off_leaves_what_the_head_says():
    network = detector().eval()
    record = batch(network, bodies(6))
    network.head.fit_batch(record["embedding"], record["cls"])
    image = bodies(2, seed=2)
    embeddings, cls = network.embed(image)
    expected = network.head.score(embeddings, cls)
    found = network.predict(image)
    assert torch.equal(found["patch_scores"], expected) and torch.equal(found["raw_scores"], expected)
    torch.testing.assert_close(found["pred"], network.upsample(expected, found["foreground"]))


@pytest.mark.parametrize(("neighbourhood", "highest"), [(1, 1), (3, 3)])
def test_an_image_score_is_of_patches_that_are_told_apart(neighbourhood, highest):
    """Of 16 patches 1 % is none: the highest, or of means over neighbours the three highest."""
    scores = torch.linspace(0, 1, 16).square().reshape(1, 1, 4, 4)
    found = detector(neighbourhood=neighbourhood).assess(scores, torch.ones(1, 1, 4, 4, dtype=torch.bool))
    assert found["image_score"].item() == pytest.approx(scores.flatten()[-highest:].mean().item())


def test_uncalibrated_units_are_refused():
    network = detector(**STAGE)
    record = batch(network, bodies(6))
    network.head.fit_batch(network.prepare(record["embedding"]), record["cls"], record["foreground"])
    with pytest.raises(RuntimeError, match="not calibrated"):
        network(bodies(1))


@pytest.mark.parametrize("changed", [{"foreground": 0.1}, {"neighbourhood": 1}, {"baseline": 0.0}, {"units": False}])
def test_a_model_of_another_stage_is_refused_by_name(network, changed):
    with pytest.raises(RuntimeError, match=next(iter(changed))):
        detector(**{**STAGE, **changed}).load_state_dict(network.state_dict())


def test_neighbourhood_is_the_mean_of_unit_vectors():
    embeddings = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    found = neighbourhood_mean(embeddings, 3)
    torch.testing.assert_close(found[:, :, 1, 1], unit[:, :, :3, :3].mean(dim=(2, 3)))
    torch.testing.assert_close(found[:, :, 0, 0], unit[:, :, :2, :2].mean(dim=(2, 3)))
    assert neighbourhood_mean(embeddings, 1) is embeddings


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize("size", [3, 5, 9])
@pytest.mark.parametrize("grid", [(1, 1), (2, 7), (6, 5)])
def test_neighbourhoods_of_a_batch_are_those_of_pooling_and_lie_as_rows(size, grid, images, dtype):
    embeddings = torch.randn(images, 4, *grid, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = F.avg_pool2d(
        F.normalize(embeddings.double(), dim=1), size, stride=1, padding=size // 2, count_include_pad=False
    )
    found = neighbourhood_mean(embeddings, size)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == torch.float32 and found.permute(0, 2, 3, 1).is_contiguous()
    recorded = neighbourhood_mean(embeddings.float().requires_grad_(), size)
    torch.testing.assert_close(recorded, found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [3, 5, 9])
@pytest.mark.parametrize("grid", [(1, 1), (2, 7), (6, 5)])
def test_box_mean_and_its_gradient_are_those_of_pooling(size, grid):
    maps = torch.randn(2, 3, *grid, requires_grad=True)
    expected = F.avg_pool2d(maps, size, stride=1, padding=size // 2, count_include_pad=False)
    found, weight = box_mean(maps, size), torch.randn_like(maps)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(mean, maps, weight)[0] for mean in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_traced_and_exported_maps_are_the_same(network, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    image = bodies(1, seed=5)
    expected = network(image)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(network, (image,)), buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(image), expected, rtol=1e-4, atol=1e-4)
    torch.onnx.export(network, (image,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    np.testing.assert_allclose(output, expected.detach(), rtol=0, atol=1e-3)
