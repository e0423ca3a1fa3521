"""A GPU that is not there: arithmetic on the CPU, the rules of CUDA, and a count of what crosses between the two.

Under :func:`absent_gpu` tensors can be moved to ``cuda:0``. They say that they are there, and what CUDA refuses
(:mod:`devices.rules`) raises. Not covered: what kernels compute, CUDA's autocast, and what happens below Python.
(``FakeTensorMode`` computes nothing, so a fit would not get far.)
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from unittest import mock

import torch
from torch import Tensor
from torch.nn.utils import clip_grad
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

FACTORIES = re.compile(
    "empty|zeros|ones|full|tensor|arange|rand(n|int|perm)?|eye|linspace|as_tensor|asarray|new_.*|.*_like"
)
WAITS = re.compile("item|tolist|__(bool|int|float|index)__|nonzero|unique|masked_select|equal")


class AbsentGPU(TorchFunctionMode):
    """Counts in ``crossings`` by (``"to the GPU"``, ``"to the host"`` or ``"wait"``, line of the package)."""

    def __init__(self) -> None:
        super().__init__()
        self.crossings: Counter[tuple[str, str]] = Counter()

    def count(self, kind: str) -> int:
        return sum(number for (found, _), number in self.crossings.items() if found == kind)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), func.__name__
        if name == "__get__":
            return self._read(func, args)
        if name == "__set__":
            func(*args)
            return on(side(args[1]), args[0]) if isinstance(args[-1], Tensor) else None
        if name in ("to", "cuda", "cpu"):
            return self._move(func, name, args, kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in ("numpy", "__array__", "__dlpack__") and side(args[0]) == GPU:
            raise Refused("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if WAITS.fullmatch(name) and any(side(tensor) == GPU for tensor in tensors):
            self._cross("wait")
        if FACTORIES.fullmatch(name):
            return self._make(func, name, args, kwargs)
        self._asked_for(kwargs)
        here, crosses = where_it_is(name, args, tensors)
        if crosses:
            self._cross("to the GPU" if here == GPU else "to the host")
        require_generator(here, kwargs.get("generator"))
        if here == GPU:
            require_kernel(name, args, tensors)
            require_exact(name, args, kwargs, tensors)
        return on(here, func(*args, **kwargs))

    def _read(self, func, args):
        owner = resolve_name(func) or ""
        if owner.endswith(("device.__get__", "is_cuda.__get__", "is_cpu.__get__")) and not args[0].is_meta:
            here = side(args[0])
            return here if "device" in owner else here == (GPU if "is_cuda" in owner else CPU)
        value = func(*args)
        return on(side(args[0]), value) if isinstance(value, Tensor) else value

    def _move(self, func, name, args, kwargs):
        source, *rest = args
        target = {"cuda": GPU, "cpu": CPU}.get(name, side(source))
        for i, value in enumerate(rest):
            if isinstance(value, Tensor):
                target = side(value)
            elif isinstance(value, torch.device | str) or (isinstance(value, int) and not isinstance(value, bool)):
                target, rest[i] = pretended(value), CPU if pretended(value) == GPU else value
        target = self._asked_for(kwargs) or target
        result = source if name == "cuda" else func(source, *rest, **kwargs)
        if side(source) != target and target.type != "meta":
            self._cross("to the GPU" if target == GPU else "to the host")
            if result is source:
                result = source.detach().clone() if isinstance(source, torch.nn.Parameter) else source.clone()
        return on(target, result)

    def _make(self, func, name, args, kwargs):
        given = args[0] if args and isinstance(args[0], Tensor) else None
        source = CPU if given is None else side(given)
        target = self._asked_for(kwargs) or source
        require_generator(target, kwargs.get("generator"))
        if name in ("tensor", "as_tensor", "asarray", "new_tensor") and source != target:
            self._cross("to the GPU" if target == GPU else "to the host")
        result = func(*args, **kwargs)
        if result is given and source == target:
            return result
        return on(target, result.clone() if result is given else result)

    @staticmethod
    def _asked_for(kwargs) -> torch.device | None:
        """The side that the keyword ``device`` stands for, which becomes one that there is."""
        if kwargs.get("device") is None:
            return None
        target = pretended(kwargs["device"])
        kwargs["device"] = CPU if target == GPU else target
        return target

    def _cross(self, kind: str) -> None:
        lines = [frame for frame in traceback.extract_stack() if "/dino_uad/" in frame.filename]
        line = f"{lines[-1].filename.split('dino_uad/')[-1]}:{lines[-1].lineno}" if lines else "elsewhere"
        self.crossings[kind, line] += 1


class PretendedGenerator(torch.Generator):
    """A generator that says which device it was made for."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")

    def __init__(self, device="cpu") -> None:
        self._side = pretended(device)

    @property
    def device(self) -> torch.device:
        return self._side


class PretendedAutocast(torch.autocast):
    """CUDA's autocast, whose types the CPU's has too."""

    def __init__(self, device_type, dtype=None, **kwargs) -> None:
        there = device_type == "cuda"
        super().__init__("cpu" if there else device_type, dtype or (torch.float16 if there else None), **kwargs)


@contextmanager
def absent_gpu(nccl: bool = False) -> Iterator[AbsentGPU]:
    """Pretend a GPU; with ``nccl`` collectives refuse CPU tensors, as NCCL does, and travel by gloo."""
    load, as_subclass, grouped = torch.load, Tensor.as_subclass, clip_grad._group_tensors_by_device_and_dtype

    def loaded(file, map_location=None, **kwargs):
        moved = map_location is not None and pretended(map_location) == GPU
        value = load(file, map_location="cpu" if moved else map_location, **kwargs)
        return on(GPU, value) if moved else value

    def by_side(lists):  # below Python, where devices are the real ones
        return {(side(group[0][0]), key[1]): (group, rest) for key, (group, rest) in grouped(lists).items()}

    def pinned(tensor):  # also in threads, which a mode does not reach
        if side(tensor) == GPU:
            raise Refused("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        return tensor.clone()

    patches = [(Tensor, "pin_memory", pinned), (torch, "load", loaded), (torch, "Generator", PretendedGenerator)]
    patches += [(Tensor, "as_subclass", lambda tensor, cls: on(side(tensor), as_subclass(tensor, cls)))]
    patches += [(clip_grad, "_group_tensors_by_device_and_dtype", by_side), (torch, "autocast", PretendedAutocast)]
    patches += [(torch, "is_autocast_enabled", lambda kind, asked=torch.is_autocast_enabled: asked("cpu"))]
    answers = {"is_available": True, "device_count": 1, "current_device": 0, "get_device_name": "absent"}
    answers |= {"is_bf16_supported": True, "max_memory_allocated": 0}
    answers |= dict.fromkeys(("synchronize", "reset_peak_memory_stats", "set_device"))
    patches += [(torch.cuda, name, lambda *_, answer=answer: answer) for name, answer in answers.items()]
    with ExitStack() as stack:
        for owner, name, value in patches:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(nccl_rule() if nccl else nullcontext())
        yield stack.enter_context(AbsentGPU())
