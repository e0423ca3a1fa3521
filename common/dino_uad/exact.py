"""What a GPU rounds or reorders unless it is told not to, done the exact way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep TF32 and bfloat16 out of float32 matrix products, and leave the user's settings as they were.

    torch has two sets of switches and refuses to work where they disagree, so the ones that were used are the ones
    that are turned.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    legacy = _legacy_precision()
    if legacy != "highest":
        torch.set_float32_matmul_precision("highest")
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        if legacy != "highest":
            torch.set_float32_matmul_precision(legacy)
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _legacy_precision() -> str:
    """Of ``set_float32_matmul_precision``; "highest", its default, where only the new switches were used."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # torch does not tell while the two disagree
        return "highest"


def without_autocast(device: torch.device) -> AbstractContextManager:
    """A context without autocast: half precision would cost cosine distances three digits, and save no time."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def running_sum(values: Tensor) -> Tensor:
    """``values.cumsum(-1)``, also under ``torch.use_deterministic_algorithms(True)``.

    CUDA adds floats in an order that differs from run to run, and raises when that is forbidden: the host adds then.
    """
    if torch.are_deterministic_algorithms_enabled() and values.is_cuda and values.is_floating_point():
        return values.cpu().cumsum(-1).to(values.device)
    return values.cumsum(-1)
