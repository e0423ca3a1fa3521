"""Reading a ``model.pt``: tensors only, and an error that says which file, what is wrong with it, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def read_model(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a model file.

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
        state = torch.load(path, map_location="cpu", weights_only=True)
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
    state = read_model(path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        problems = [line.strip().rstrip(".") for line in str(error).splitlines()[1:]]
        raise ValueError(
            f"{path} does not fit this network: {'; '.join(problems)}. Expected a model of the same settings: repeat "
            "the overrides that train was run with, or train again"
        ) from error
