"""Reading checkpoints: key conversion in both directions, and every way in which a file can be wrong."""

import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from dino_uad.backbones import architectures
from dino_uad.backbones.architectures import ARCHITECTURES, guess_architecture
from dino_uad.backbones.backbone import random_state
from dino_uad.backbones.checkpoints import (
    from_huggingface,
    huggingface_bytes,
    load_strict,
    read_checkpoint,
    state_digest,
    to_huggingface,
)
from dino_uad.backbones.vit import VisionTransformer, ViTConfig

# Head dimension 64, as in every released model: Hugging Face's files do not say it.
TINY = {
    "tiny14": ViTConfig(embed_dim=128, depth=2, num_heads=2, position_grid=5),
    "tiny14_reg4": ViTConfig(embed_dim=128, depth=2, num_heads=2, num_registers=4, position_grid=5),
    "tiny16": ViTConfig(embed_dim=128, depth=2, num_heads=2, patch_size=16, num_registers=4, rope=True),
}
BLOCK_2 = {
    "tiny14": {
        "attention.attention.query.weight": [128, 128],
        "attention.attention.key.bias": [128],
        "attention.output.dense.weight": [128, 128],
        "layer_scale1.lambda1": [128],
        "mlp.fc1.weight": [512, 128],
        "norm1.weight": [128],
    },
    "tiny16": {
        "attention.q_proj.weight": [128, 128],
        "attention.k_proj.weight": [128, 128],
        "attention.o_proj.bias": [128],
        "layer_scale2.lambda1": [128],
        "mlp.up_proj.weight": [512, 128],
        "mlp.down_proj.weight": [128, 512],
        "norm2.bias": [128],
    },
}


@pytest.fixture
def model():
    return VisionTransformer(TINY["tiny14"]).eval()


@pytest.fixture(params=TINY)
def official(request):
    """Name and official state dict with every value that survives Hugging Face's format set at random."""
    model = VisionTransformer(TINY[request.param])
    state = {key: torch.randn_like(value) if value.ndim else value for key, value in model.state_dict().items()}
    for key in state:
        if key.endswith("qkv.bias") and TINY[request.param].rope:
            state[key][128:256] = 0
        if key.endswith(("bias_mask", "periods")):
            state[key] = model.state_dict()[key]
    return request.param, state


def test_huggingface_round_trip(official):
    _, state = official
    back = from_huggingface(to_huggingface(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_huggingface_names(official):
    name, state = official
    converted = to_huggingface(state)
    rope = TINY[name].rope
    layer = "layer.1." if rope else "encoder.layer.1."
    for key, shape in BLOCK_2["tiny16" if rope else "tiny14"].items():
        assert list(converted[layer + key].shape) == shape
    assert "norm.weight" in converted if rope else "layernorm.weight" in converted
    assert ("embeddings.register_tokens" in converted) == (TINY[name].num_registers > 0)
    assert not any("qkv" in key or "bias_mask" in key or "periods" in key for key in converted)
    assert not (rope and any(key.endswith("k_proj.bias") for key in converted))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".hf.safetensors"])
def test_every_format_gives_the_same_model(official, suffix, tmp_path):
    name, state = official
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    elif suffix == ".safetensors":
        save_file(state, path)
    else:
        path.write_bytes(huggingface_bytes(state))
    found = read_checkpoint(path)
    model = VisionTransformer(TINY[name])
    load_strict(model, found, name, str(path))
    assert state_digest(found) == state_digest(state) == state_digest(model.state_dict())


def test_model_prefix_of_newer_huggingface_files(official, tmp_path):
    _, state = official
    prefixed = {f"model.{k}" if "layer." in k else k: v for k, v in to_huggingface(state).items()}
    assert state_digest(from_huggingface(prefixed)) == state_digest(state)


def test_half_precision_file_becomes_float32(model, tmp_path):
    save_file({key: value.half() for key, value in model.state_dict().items()}, tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in read_checkpoint(tmp_path / "half.safetensors").values()} == {torch.float32}


def test_digest_sees_values_and_names(model):
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    changed = dict(state, cls_token=state["cls_token"] + 1e-6)
    swapped = dict(state, **{"norm.weight": state["norm.bias"], "norm.bias": state["norm.weight"]})
    assert len({state_digest(s) for s in (state, changed, swapped)}) == 3


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no backbone weights at .*gone\.pth"):
        read_checkpoint(tmp_path / "gone.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_truncated_file(model, suffix, keep, tmp_path):
    path = tmp_path / f"cut{suffix}"
    (torch.save if suffix == ".pth" else save_file)(model.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(ValueError, match=r"cut\.(pth|safetensors)"):
        read_checkpoint(path)


class Attack:
    def __reduce__(self):
        return (open, ("attacked", "w"))


@pytest.mark.parametrize("writer", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
def test_pickle_with_code_is_not_run(writer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer({"cls_token": Attack()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth holds more than tensors and is not loaded"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("content", [{"model": {"cls_token": torch.zeros(1)}}, [1, 2], torch.zeros(3)])
def test_not_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth is no state dict"):
        read_checkpoint(tmp_path / "odd.pth")


def test_other_kind_of_model(tmp_path):
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "resnet.safetensors")
    with pytest.raises(ValueError, match=r"no DINOv2 or DINOv3 checkpoint: its keys start with conv1\.weight"):
        read_checkpoint(tmp_path / "resnet.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights(model, value, tmp_path):
    state = model.state_dict()
    state["blocks.1.mlp.fc2.weight"][3, 5] = value
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinite values in 1 tensors \(blocks\.1\.mlp\.fc2\.weight"):
        read_checkpoint(tmp_path / "bad.safetensors")


def test_missing_and_unexpected_keys(model):
    state = dict(model.state_dict())
    del state["norm.weight"]
    state["head.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"file\.pth do not fit tiny14: norm\.weight is missing; head\.weight is not"):
        load_strict(model, state, "tiny14", "file.pth")


def test_huggingface_file_without_a_key(official, tmp_path):
    _, state = official
    converted = to_huggingface(state)
    del converted[next(key for key in converted if key.endswith(("attention.key.weight", "k_proj.weight")))]
    save_file(converted, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="lacks one of the query, key and value tensors"):
        read_checkpoint(tmp_path / "model.safetensors")
    assert len(load_file(tmp_path / "model.safetensors")) == len(converted)


def test_wrong_architecture_names_the_right_one(official, monkeypatch):
    name, state = official
    for other, config in TINY.items():
        monkeypatch.setitem(architectures.ARCHITECTURES, other, config)
    target = "tiny16" if name != "tiny16" else "tiny14"
    with pytest.raises(ValueError, match=rf"do not fit {target}: .* more; the file looks like {name}$"):
        load_strict(VisionTransformer(TINY[target]), state, target, "file.pth")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_told_apart(name):
    with torch.device("meta"):
        state = VisionTransformer(ARCHITECTURES[name]).state_dict()
    assert guess_architecture(state) == name


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Counted on the official models; S is also stated for the published checkpoint.
    [("dinov2_vits14", 22_056_576), ("dinov2_vitb14", 86_580_480), ("dinov2_vitl14", 304_368_640)],
)
def test_parameter_counts(name, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in VisionTransformer(ARCHITECTURES[name]).parameters()) == parameters


def test_random_state_is_seeded(model):
    assert state_digest(random_state(model)) == state_digest(random_state(model))
    assert state_digest(random_state(model)) != state_digest(random_state(model, seed=1))
