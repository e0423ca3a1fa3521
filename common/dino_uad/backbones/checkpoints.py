"""Reading backbone checkpoints: official ``.pth`` and Hugging Face ``model.safetensors``, always strictly.

The model's own keys are the official ones. Hugging Face's ``Dinov2Model``, ``Dinov2WithRegistersModel`` and
``DINOv3ViTModel`` split the ``qkv`` projection in three and rename the rest; DINOv3's also drops the masked key bias,
its mask and the rotary periods, which are constants.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dino_uad.backbones.architectures import guess_architecture
from dino_uad.backbones.packed import unpack_state
from dino_uad.backbones.rope import rope_periods
from dino_uad.torch_files import load_torch

State = dict[str, Tensor]

# (official, Hugging Face) key, or start of a key below `blocks.N.` / `layer.N.`.
DINOV2_NAMES = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "register_tokens": "embeddings.register_tokens",
    "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    "norm.": "layernorm.",
}
DINOV2_BLOCK_NAMES = {
    "attn.query.": "attention.attention.query.",
    "attn.key.": "attention.attention.key.",
    "attn.value.": "attention.attention.value.",
    "attn.proj.": "attention.output.dense.",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
DINOV3_NAMES = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "storage_tokens": "embeddings.register_tokens",
    "patch_embed.proj.": "embeddings.patch_embeddings.",
}
DINOV3_BLOCK_NAMES = {
    "attn.query.": "attention.q_proj.",
    "attn.key.": "attention.k_proj.",
    "attn.value.": "attention.v_proj.",
    "attn.proj.": "attention.o_proj.",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "mlp.fc1.": "mlp.up_proj.",
    "mlp.fc2.": "mlp.down_proj.",
}


def read_checkpoint(path: str | Path) -> State:
    """Read a checkpoint file into float32 tensors under the official keys.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds anything but tensors, non-finite values, or another kind of model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no backbone weights at {path}; give the path of a .pth or .safetensors file")
    state = _read_tensors(path)
    if "embeddings.cls_token" in state:
        state = from_huggingface(state)
    if "cls_token" not in state or "patch_embed.proj.weight" not in state:
        some = ", ".join(list(state)[:3])
        raise ValueError(
            f"{path} is no DINOv2 or DINOv3 checkpoint: its keys start with {some or 'nothing'}, expected official "
            "keys (cls_token, blocks.0...) or Hugging Face keys (embeddings.cls_token, ...)"
        )
    state = {key: tensor.float().contiguous() for key, tensor in state.items()}
    bad = [key for key, tensor in state.items() if not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"{path} holds NaN or infinite values in {len(bad)} tensors ({bad[0]}, ...): get it again")
    return state


def _read_tensors(path: Path) -> State:
    try:
        if path.suffix == ".safetensors":
            return unpack_state(load_file(path))
        state = load_torch(path)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint ({error}); delete it and get it again") from error
    except Exception as error:
        # torch.load's UnpicklingError: the pickle asks for something else than tensors, which is never executed.
        raise ValueError(f"{path} holds more than tensors and is not loaded: {str(error).splitlines()[0]}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is no state dict: expected names mapped to tensors at the top level")
    return dict(state)


def load_strict(model: torch.nn.Module, state: Mapping[str, Tensor], arch: str, origin: str) -> None:
    """Give ``model`` the tensors of ``state``; ValueError that names the first differences unless all keys fit.

    The tensors are assigned, not copied, so that the model may have been built on the meta device.
    """
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    problems = [f"{key} is missing" for key in expected if key not in found]
    problems += [f"{key} is not part of {arch}" for key in found if key not in expected]
    problems += [
        f"{key} has shape {list(found[key])}, {arch} needs {list(shape)}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    if problems:
        guess = guess_architecture(state)
        hint = f"; the file looks like {guess}" if guess not in (None, arch) else ""
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"weights from {origin} do not fit {arch}: {'; '.join(problems[:3])}{more}{hint}")
    model.load_state_dict(dict(state), strict=True, assign=True)


def from_huggingface(state: Mapping[str, Tensor]) -> State:
    """Rename a Hugging Face state dict to the official keys and join ``qkv``; the inverse of :func:`to_huggingface`."""
    state = {key.removeprefix("model."): tensor for key, tensor in state.items()}
    rope = "embeddings.position_embeddings" not in state
    result = {_rename(key, rope, to_official=True): tensor for key, tensor in state.items()}
    for key in [key for key in result if key.endswith("attn.query.weight")]:
        _join_qkv(result, key.removesuffix("query.weight"), masked=rope)
    if rope:
        head_dim = 64  # of every released DINOv3; the number of heads cannot be read from the tensors
        result["rope_embed.periods"] = rope_periods(head_dim)
        if "mask_token" in result:
            result["mask_token"] = result["mask_token"].reshape(1, -1)
    return result


def to_huggingface(state: Mapping[str, Tensor]) -> State:
    """Rename an official state dict to Hugging Face's keys of the same model and split ``qkv``."""
    rope = "pos_embed" not in state
    result: State = {}
    for key, tensor in state.items():
        if key.endswith("bias_mask") or key == "rope_embed.periods":
            continue
        if ".attn.qkv." not in key:
            result[_rename(key, rope, to_official=False)] = tensor[None] if rope and key == "mask_token" else tensor
            continue
        for part, chunk in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            if rope and part == "key" and key.endswith("bias"):
                continue
            result[_rename(key.replace("qkv", part), rope, to_official=False)] = chunk.contiguous()
    return result


def _rename(key: str, rope: bool, to_official: bool) -> str:
    names, block_names = (DINOV3_NAMES, DINOV3_BLOCK_NAMES) if rope else (DINOV2_NAMES, DINOV2_BLOCK_NAMES)
    layer = "layer." if rope else "encoder.layer."
    old_layer, new_layer = (layer, "blocks.") if to_official else ("blocks.", layer)
    block = re.fullmatch(re.escape(old_layer) + r"(\d+)\.(.+)", key)
    stem, rest = (f"{new_layer}{block[1]}.", block[2]) if block else ("", key)
    for official, huggingface in (block_names if block else names).items():
        old, new = (huggingface, official) if to_official else (official, huggingface)
        if rest == old or (old.endswith(".") and rest.startswith(old)):
            return stem + new + rest[len(old) :]
    return stem + rest


def _join_qkv(state: State, prefix: str, masked: bool) -> None:
    for kind in ("weight", "bias"):
        query, key, value = (state.pop(f"{prefix}{part}.{kind}", None) for part in ("query", "key", "value"))
        if query is not None and key is None and masked and kind == "bias":
            key = torch.zeros_like(query)
        if query is None or key is None or value is None:
            raise ValueError(f"the checkpoint lacks one of the query, key and value tensors of {prefix}*.{kind}")
        state[f"{prefix}qkv.{kind}"] = torch.cat((query, key, value))
    if masked:
        ones = torch.ones_like(query)
        state[f"{prefix}qkv.bias_mask"] = torch.cat((ones, torch.zeros_like(ones), ones))


def huggingface_bytes(state: Mapping[str, Tensor]) -> bytes:
    """The state as the official writer of ``model.safetensors`` lays it out, byte for byte."""
    return save(to_huggingface(state), metadata={"format": "pt"})


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, shapes and values, the same for every file format the tensors came in."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().float().contiguous()
        digest.update(f"{key}{list(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
