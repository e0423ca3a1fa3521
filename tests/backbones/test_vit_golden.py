"""The vision transformer against the official classes on tiny random weights, every golden array."""

import pytest
import torch

from dino_uad.backbones.vit import VisionTransformer, ViTConfig

TOLERANCE = {"atol": 5e-5, "rtol": 0}
MODELS = {
    "dinov2_tiny_noreg": ViTConfig(embed_dim=48, depth=3, num_heads=3),
    "dinov2_tiny_reg4": ViTConfig(embed_dim=48, depth=3, num_heads=3, num_registers=4),
    "dinov3_tiny": ViTConfig(embed_dim=48, depth=3, num_heads=3, patch_size=16, num_registers=4, rope=True),
}


@pytest.fixture(params=MODELS)
def case(request, golden):
    arrays, _ = golden(request.param)
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    model = VisionTransformer(MODELS[request.param]).eval().requires_grad_(False)
    model.load_state_dict({key[3:]: value for key, value in tensors.items() if key.startswith("sd/")}, strict=True)
    return model, tensors


def outputs(model: VisionTransformer, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Everything the golden files hold, under their names."""
    config, prefix = model.config, model.config.num_prefix_tokens
    rows, columns = (size // config.patch_size for size in image.shape[-2:])
    middle, last = model(image, layers=[1, 2])
    (unnormed,) = model(image, norm=False)
    registers = "x_norm_storagetokens" if config.rope else "x_norm_regtokens"
    result = {
        "layers_n1": model(image)[0][:, prefix:],
        "layers_list_block1": middle[:, prefix:],
        "layers_list_block2": last[:, prefix:],
        "n1_class_token": last[:, 0],
        "block1_class_token": middle[:, 0],
        "layers_n1_unnormed": unnormed[:, prefix:],
        "layers_n1_reshaped": last[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns)),
        "x_norm_clstoken": last[:, 0],
        "x_norm_patchtokens": last[:, prefix:],
        registers: last[:, 1:prefix],
        "tokens_before_blocks": model.embed(image)[0],
    }
    if config.rope:
        sin, cos = model.rope_table(rows, columns)
        return result | {"rope_sin": sin[prefix:], "rope_cos": cos[prefix:]}
    return result | {"pos_embed_interpolated": model.position_embedding(rows, columns)}


@pytest.mark.parametrize("size", ["in0", "in1"])
def test_every_golden_array(case, size):
    model, tensors = case
    expected = {key.removeprefix(f"{size}/"): value for key, value in tensors.items() if key.startswith(f"{size}/")}
    found = outputs(model, expected.pop("input"))
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **TOLERANCE, msg=lambda text, name=name: name + text)


def test_cached_tables_follow_new_weights_and_precision(case):
    model, tensors = case
    image = tensors["in0/input"]
    before = model(image)[0]
    assert model._tables
    torch.testing.assert_close(model(image)[0], before, atol=0, rtol=0)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    table = "rope_embed.periods" if model.config.rope else "pos_embed"
    model.load_state_dict(state | {table: state[table] * 1.5})
    assert (model(image)[0] - before).abs().max() > 1e-3
    model.load_state_dict(state)
    torch.testing.assert_close(model.double()(image.double())[0].float(), before, **TOLERANCE)


def test_key_bias_is_masked_in_dinov3(golden):
    arrays, _ = golden("dinov3_tiny")
    model = VisionTransformer(MODELS["dinov3_tiny"]).eval().requires_grad_(False)
    state = {key[3:]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith("sd/")}
    model.load_state_dict(state)
    image = torch.from_numpy(arrays["in0/input"])
    with_mask = model(image)[0]
    model.blocks[0].attn.qkv.bias_mask.fill_(1)
    assert (model(image)[0] - with_mask).abs().max() > 1e-3


def test_no_gradient_leaks_into_the_cache():
    model = VisionTransformer(MODELS["dinov2_tiny_noreg"]).eval()
    model(torch.rand(1, 3, 28, 28))[0].sum().backward()
    model(torch.rand(1, 3, 28, 28))[0].sum().backward()
    assert model.pos_embed.grad is not None
    assert not model._tables
