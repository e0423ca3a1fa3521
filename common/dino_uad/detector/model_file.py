"""Reading a ``model.pt``: tensors only, and an error that says which file, what is wrong with it, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dino_uad.detector import fingerprint
from dino_uad.detector.normal_scans import NormalScans
from dino_uad.detector.operating_points import FALSE_POSITIVE_RATES, FREE_RESPONSE
from dino_uad.torch_files import load_torch

ALL_SLICES = {"preset": None, "stride": 1, "min_foreground": 0.0}


def read_model(path: str | Path, mmap: bool = False) -> dict[str, Tensor]:
    """The tensors of a model file.

    Args:
        path: the file.
        mmap: leave the tensors in the file until they are looked at.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or holds anything but named tensors (code is never run).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such model file; expected the model.pt that train.json writes. Train first, or set ckpt_dir "
            "to the folder that holds it"
        )
    advice = "expected the model.pt that train.json writes: copy it again, or train again"
    try:
        state = load_torch(path, mmap=mmap)
    except Exception as error:  # pickle raises almost anything on damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path}: damaged, or it holds more than tensors and is not loaded ({reason}); {advice}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: found {type(state).__name__}, not names mapped to tensors; {advice}")
    return dict(state)


def load_model(network: nn.Module, path: str | Path) -> None:
    """Load a model file into the detector it was written by.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or it was fitted with another backbone, method, resolution or preprocessing.
    """
    state = read_model(path, mmap=True)  # copied once, into the network; a bank takes gigabytes
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        problems = [line.strip().rstrip(".") for line in str(error).splitlines()[1:]]
        raise ValueError(
            f"{path} does not fit this network: {'; '.join(problems)}. Expected a model of the same settings: repeat "
            "the overrides that train was run with, or train again"
        ) from error


def not_numbers(state: Mapping[str, Tensor], prefix: str) -> list[str]:
    """List one sentence for each tensor with NaN whose name starts with ``prefix``."""
    return [
        f"{key}: NaN found in the checkpoint; it was damaged or its training failed, fit again"
        for key, value in state.items()
        if key.startswith(prefix) and value.is_floating_point() and value.isnan().any()
    ]


def fitted_slices(path: str | Path) -> dict[str, Any]:
    """How the slices of volumes were chosen for the fit: ``preset``, ``stride`` and ``min_foreground``.

    A model that does not say was given all slices. One whose fingerprint is missing or damaged is refused by
    :func:`load_model`, so here it counts as one that does not say.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no model file.
    """
    state = read_model(path, mmap=True)
    try:
        return ALL_SLICES | fingerprint.decode(state["fingerprint"])["slices"]
    except (KeyError, TypeError, ValueError):
        return dict(ALL_SLICES)


def read_threshold(path: str | Path, point: float | str) -> float:
    """The calibrated score threshold of an operating point, from a model file.

    Args:
        path: the file.
        point: one of :data:`FALSE_POSITIVE_RATES`, or of :data:`FREE_RESPONSE`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no model file, or it was never calibrated.
    """
    state = read_model(path, mmap=True)
    free = point in FREE_RESPONSE
    values = state.get("normal_scans.finding_thresholds" if free else "thresholds", torch.zeros(0))
    known = dict(zip(FREE_RESPONSE if free else FALSE_POSITIVE_RATES, values, strict=False))  # 0.1 kept three rates
    value = known.get(point, torch.tensor(torch.nan))
    if value.isnan():
        raise ValueError(
            f"{Path(path).name}: no calibrated threshold found for {point!r}; fit with validation images (train.json), "
            "or calibrate with normal scans (python -m dino_uad calibrate)"
        )
    return float(value)


def read_normal_scans(path: str | Path) -> NormalScans:
    """Read the score distributions of normal scans from a model file; uncalibrated ones where it has none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no model file.
    """
    prefix, normal = "normal_scans.", NormalScans()
    state = read_model(path, mmap=True)
    stored = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if stored:
        normal.load_state_dict(normal.state_dict() | stored)
    return normal
