"""DinoBackbone: preprocessing, layer choice, frozenness, errors, and export."""

import copy
import warnings

import pytest
import torch

from dino_uad.backbones import architectures
from dino_uad.backbones.backbone import DinoBackbone
from dino_uad.backbones.vit import ViTConfig

TINY = {
    "tiny14": ViTConfig(embed_dim=48, depth=3, num_heads=3),
    "tiny14_reg4": ViTConfig(embed_dim=48, depth=3, num_heads=3, num_registers=4),
    "tiny16": ViTConfig(embed_dim=48, depth=3, num_heads=3, patch_size=16, num_registers=4, rope=True),
}


@pytest.fixture(autouse=True)
def tiny_architectures(monkeypatch):
    for name, config in TINY.items():
        monkeypatch.setitem(architectures.ARCHITECTURES, name, config)


@pytest.fixture(params=TINY)
def backbone(request):
    return DinoBackbone(request.param, weights="random")


def image_for(backbone: DinoBackbone, batch: int = 2, channels: int = 3) -> torch.Tensor:
    patch = backbone.patch_size
    return torch.rand(batch, channels, 4 * patch, 5 * patch, generator=torch.Generator().manual_seed(0))


def test_shapes_and_frozen(backbone):
    embeddings, cls = backbone.train()(image_for(backbone))
    assert embeddings.shape == (2, 48, 4, 5) and cls.shape == (2, 48)
    assert embeddings.dtype == torch.float32
    assert not embeddings.requires_grad and not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_empty_batch(backbone):
    embeddings, cls = backbone(image_for(backbone, batch=0))
    assert embeddings.shape == (0, 48, 4, 5) and cls.shape == (0, 48)


def test_grey_equals_replicated_rgb_and_imagenet_normalisation(backbone):
    grey = image_for(backbone, channels=1)
    torch.testing.assert_close(backbone(grey)[0], backbone(grey.repeat(1, 3, 1, 1))[0])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(backbone.normalize(grey), (grey.repeat(1, 3, 1, 1) - mean) / std)


def test_patch_order_is_row_major(backbone):
    tokens = backbone.tokens(image_for(backbone))[:, -20:]
    embeddings, _ = backbone(image_for(backbone))
    torch.testing.assert_close(embeddings[:, :, 2, 3], tokens[:, 2 * 5 + 3])


def test_several_layers_are_averaged(backbone):
    image = image_for(backbone)
    for norm in (True, False):
        first, last, both = (
            DinoBackbone(backbone.arch, layers, final_norm=norm, weights="random")(image)
            for layers in ([0], [2], [0, -1])
        )
        torch.testing.assert_close(both[0], (first[0] + last[0]) / 2)
        torch.testing.assert_close(both[1], (first[1] + last[1]) / 2)


def test_layers_are_resolved_to_indices():
    assert DinoBackbone("tiny14", (-1, 0), weights="random").layers == (2, 0)


def test_metatensor_and_half_input(backbone):
    from monai.data import MetaTensor

    image = image_for(backbone)
    expected = backbone(image)[0]
    result = backbone(MetaTensor(image))[0]
    assert type(result) is torch.Tensor
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(backbone(image.half())[0], expected, atol=5e-2, rtol=0)


def test_identity_is_a_hash_of_the_weights(backbone):
    assert backbone.identity == DinoBackbone(backbone.arch, weights="random").identity
    identities = {DinoBackbone(arch, weights="random").identity for arch in TINY}
    assert len(identities) == len(TINY)


def test_bfloat16_is_close(backbone, monkeypatch):
    monkeypatch.setattr("dino_uad.backbones.backbone.half_precision_pays", lambda *of: True)
    image = image_for(backbone)
    half = DinoBackbone(backbone.arch, weights="random", precision="bfloat16")
    assert half(image)[0].dtype == torch.float32
    torch.testing.assert_close(half(image)[0], backbone(image)[0], atol=0.1, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):  # which rounds the matrices in every call, where ours are held rounded
        (expected,) = backbone.vit(backbone.normalize(image))
    assert torch.equal(half.tokens(image), expected.float())
    assert half.vit.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16 and half.identity == backbone.identity


@pytest.mark.parametrize("made_in_inference_mode", [False, True])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_where_half_precision_would_be_emulated_rounded_matrices_are_multiplied_in_float32(
    precision, made_in_inference_mode, monkeypatch, caplog
):
    with torch.inference_mode(made_in_inference_mode):
        half = DinoBackbone("tiny14", weights="random", precision=precision)
    rounded = DinoBackbone("tiny14", weights="random")
    for layer in rounded.vit.blocks.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.to(getattr(torch, precision)).float()
    image = image_for(half)
    monkeypatch.setattr("dino_uad.backbones.backbone.half_precision_pays", lambda *of: False)
    with torch.inference_mode():
        assert all(torch.equal(half.tokens(image), rounded.tokens(image)) for _ in range(2))
    assert caplog.text.count(f"matrices rounded to {precision} are multiplied in float32") == 1
    if not made_in_inference_mode:  # else torch itself lets nobody write into what it holds
        half.load_state_dict(half.state_dict())
    monkeypatch.setattr("dino_uad.backbones.backbone.half_precision_pays", lambda *of: True)  # another device
    half.tokens(image)
    assert half.vit.blocks[0].mlp.fc1.weight.dtype == getattr(torch, precision)


def test_a_graph_is_in_the_precision_asked_for_whatever_this_processor_does(monkeypatch):
    half = DinoBackbone("tiny14", weights="random", precision="bfloat16")
    monkeypatch.setattr("dino_uad.backbones.backbone.half_precision_pays", lambda *of: False)
    image = image_for(half)
    traced = torch.jit.trace(half, image, check_trace=False)
    assert half.vit.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    monkeypatch.setattr("dino_uad.backbones.backbone.half_precision_pays", lambda *of: True)
    torch.testing.assert_close(traced(image)[0], half(image)[0], atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "dinov9"}, "unknown backbone 'dinov9'; known: dinov2_vits14"),
        ({"arch": "tiny14", "layers": [3]}, "blocks 0 to 2"),
        ({"arch": "tiny14", "layers": []}, "blocks 0 to 2"),
        ({"arch": "tiny14", "precision": "int8"}, "known: float32"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DinoBackbone(**{"weights": "random", **arguments})


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(1, 3, 30, 28), "multiples of 14 pixels, got 30x28; resize or pad the image first.* 28x28"),
        (torch.rand(1, 3, 5, 28), "14x28"),
        (torch.rand(1, 2, 28, 28), r"\[1, 2, 28, 28\]"),
        (torch.rand(3, 28, 28), r"\[B,1\|3,H,W\]"),
        (torch.zeros(1, 3, 28, 28, dtype=torch.uint8), "uint8"),
    ],
)
def test_bad_images(image, message):
    with pytest.raises(ValueError, match=message):
        DinoBackbone("tiny14", weights="random")(image)


def test_deepcopy_and_state_dict_round_trip(backbone):
    image = image_for(backbone)
    expected = backbone(image)[0]
    torch.testing.assert_close(copy.deepcopy(backbone)(image)[0], expected)
    assert {key.removeprefix("vit.") for key in backbone.state_dict()} == set(backbone.vit.state_dict())


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "cached tables"])
def test_trace_generalises_over_batch_size(backbone, warm):
    if warm:
        backbone(image_for(backbone))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(backbone, image_for(backbone))
    image = image_for(backbone, batch=3)
    for found, expected in zip(traced(image), backbone(image), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "torch.export"])
def test_onnx_export_gives_the_same_numbers(backbone, dynamo, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    image = image_for(backbone)
    if not dynamo:  # the old exporter lacks the antialiased resampling: it needs the table to exist already
        backbone(image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(backbone, (image,), str(tmp_path / "model.onnx"), dynamo=dynamo, verbose=False)
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    for array, expected in zip(found, backbone(image), strict=True):
        torch.testing.assert_close(torch.from_numpy(array), expected, atol=5e-5, rtol=0)


@pytest.mark.slow
def test_real_weights_give_features_of_images():
    """A shifted disc is the same thing to DINOv2, stripes are another."""
    backbone = DinoBackbone("dinov2_vits14")
    assert backbone.embed_dim == 384 and sum(p.numel() for p in backbone.vit.parameters()) == 22_056_576
    axis = torch.linspace(-1, 1, 224)
    disc = ((axis[:, None] ** 2 + axis**2) < 0.4).float()
    stripes = (torch.sin(40 * axis)[:, None] > 0).float().expand(224, 224)
    batch = torch.stack([disc, disc.roll(28, 1), stripes])[:, None]
    _, cls = backbone(batch)
    similarity = torch.nn.functional.cosine_similarity(cls[0], cls[1:], dim=-1)
    assert similarity[0] > 0.6 and similarity[1] < 0.5
