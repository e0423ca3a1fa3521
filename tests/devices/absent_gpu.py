"""A GPU that is not there: arithmetic on the CPU, the rules of CUDA, and a count of what crosses between the two.

Under :func:`absent_gpu` tensors can be moved to ``cuda:0``. They say that they are there, and what CUDA refuses
(:mod:`devices.rules`) raises. Not covered: what kernels compute, and what happens below Python.
(``FakeTensorMode`` computes nothing, so a fit would not get far.)
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from devices.nccl import nccl as nccl_rule
from devices.rules import (
    CPU,
    GPU,
    Refused,
    on,
    pretended,
    require_exact,
    require_generator,
    require_kernel,
    side,
    where_it_is,
)
from devices.stand_ins import stand_ins
from dino_uad.heads.spatial_ar.gather import copies_of, places_at

FACTORIES = re.compile(
    "empty|zeros|ones|full|tensor|arange|rand(n|int|perm)?|eye|linspace|as_tensor|asarray|new_.*|.*_like"
)
BRING = re.compile("to|cuda|cpu|tensor|as_tensor|asarray|new_tensor")
WAITS = re.compile("item|tolist|__(bool|int|float|index)__|nonzero|unique|masked_select|equal")
HOST_ONLY = ("numpy", "__array__", "__dlpack__")


class AbsentGPU(TorchFunctionMode):
    """Counts in ``crossings`` by (``"to the GPU"``, ``"to the host"`` or ``"wait"``, line of the package)."""

    def __init__(self) -> None:
        super().__init__()
        self.crossings: Counter[tuple[str, str]] = Counter()

    def count(self, kind: str) -> int:
        return sum(number for (found, _), number in self.crossings.items() if found == kind)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, args, kwargs = func.__name__, list(args), dict(kwargs or {})
        if name in ("__get__", "__set__"):
            return _attribute(func, name, args)
        source = side(args[0]) if args and isinstance(args[0], Tensor) else CPU
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in HOST_ONLY and source == GPU:
            raise Refused("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if WAITS.fullmatch(name) and any(side(tensor) == GPU for tensor in tensors):
            self._cross("wait")
        here = _asked_for(name, args, kwargs) or (source if FACTORIES.fullmatch(name) else None)
        crosses = BRING.fullmatch(name) and here not in (None, source) and here.type != "meta"
        if here is None:
            here, crosses = where_it_is(name, args, tensors)
        if crosses:
            self._cross("to the GPU" if here == GPU else "to the host")
        require_generator(here, kwargs.get("generator"))
        if here == GPU:
            require_kernel(name, args, tensors)
            require_exact(name, args, kwargs, tensors)
        result = args[0] if name == "cuda" else func(*args, **kwargs)
        if any(result is tensor for tensor in tensors) and side(result) != here:
            result = result.detach().clone() if isinstance(result, torch.nn.Parameter) else result.clone()
        return on(here, result)

    def _cross(self, kind: str) -> None:
        lines = [frame for frame in traceback.extract_stack() if "/dino_uad/" in frame.filename]
        line = f"{lines[-1].filename.split('dino_uad/')[-1]}:{lines[-1].lineno}" if lines else "elsewhere"
        self.crossings[kind, line] += 1


def _attribute(func, name: str, args: list):
    """Reading or setting an attribute of a tensor, of which some tell where it is."""
    here, owner = side(args[0]), resolve_name(func) or ""
    if name == "__set__":
        func(*args)
        return on(side(args[1]), args[0]) if isinstance(args[1], Tensor) else None
    if owner.endswith(("device.__get__", "is_cuda.__get__", "is_cpu.__get__")) and not args[0].is_meta:
        return here if "device" in owner else here == (GPU if "is_cuda" in owner else CPU)
    value = func(*args)
    return on(here, value) if isinstance(value, Tensor) else value


def _asked_for(name: str, args: list, kwargs: dict) -> torch.device | None:
    """The side that a call names, in whose place the arguments get a device that there is; None where none is named."""
    found = {"cuda": GPU, "cpu": CPU}.get(name)
    if name == "to":
        found = side(args[0])
        for i, value in enumerate(args[1:], start=1):
            if isinstance(value, Tensor):
                found = side(value)
            elif isinstance(value, torch.device | str) or (isinstance(value, int) and not isinstance(value, bool)):
                found, args[i] = _there(value)
    if kwargs.get("device") is not None:
        found, kwargs["device"] = _there(kwargs["device"])
    return found


def _there(device) -> tuple[torch.device, torch.device]:
    """What a device is pretended to be, and what it is."""
    found = pretended(device)
    return found, CPU if found == GPU else found


@contextmanager
def absent_gpu(nccl: bool = False) -> Iterator[AbsentGPU]:
    """Pretend a GPU; with ``nccl`` collectives refuse CPU tensors, as NCCL does, and travel by gloo."""
    _forget_indices()
    try:
        with stand_ins(), nccl_rule() if nccl else nullcontext(), AbsentGPU() as mode:
            yield mode
    finally:
        _forget_indices()


def _forget_indices() -> None:
    """What was kept for a pretended GPU must not be taken for a real one's, nor the other way round."""
    places_at.cache_clear()
    copies_of.cache_clear()
