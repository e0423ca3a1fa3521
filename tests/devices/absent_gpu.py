"""A GPU that is not there: arithmetic on the CPU, the rules of CUDA, and a count of what crosses between the two.

Under :func:`absent_gpu` tensors can be moved to ``cuda:0``. They say that they are there, and what CUDA refuses raises
:class:`Refused`: operands on both sides, ``numpy()``, a generator of the other side, a float running sum under
deterministic algorithms, a convolution that would be TF32. Not covered: what kernels compute, CUDA's autocast, and what
happens below Python. (``FakeTensorMode`` computes nothing, so a fit would not get far.)
"""

from __future__ import annotations

import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
# Elementwise functions take a CPU tensor without axes for a number.
ELEMENTWISE = re.compile(
    "add|sub|mul|div|true_divide|rsub|pow|where|minimum|maximum|clamp|clamp_min|clamp_max|eq|ne|lt|le|gt|ge|lerp|atan2|"
    "fmod|remainder|floor_divide|masked_fill|addcmul|(logical|bitwise)_(and|or|left_shift|right_shift)|and|or|xor|"
    "[lr]shift|[ir]?(add|sub|mul|truediv|pow)"
)
FACTORIES = re.compile(
    "empty|zeros|ones|full|tensor|arange|rand(n|int|perm)?|eye|linspace|as_tensor|asarray|new_.*|.*_like"
)
WAITS = re.compile("item|tolist|__(bool|int|float|index)__|nonzero|unique|masked_select|equal")
HOUSEKEEPING = re.compile("backward|register_hook|set_|swap_tensors|_has_compatible_shallow_copy_type|is_same_size")


class Refused(RuntimeError):
    """What a GPU would have raised."""


def side(tensor: Tensor) -> torch.device:
    return getattr(tensor, "_side", CPU)


def on(device: torch.device, value):
    """Mark every tensor in ``value`` as on ``device`` and return it."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor) and not leaf.is_meta:
            leaf._side = device
    return value


def pretended(device) -> torch.device:
    """The side that a user's device stands for; there is one GPU a process."""
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return GPU if device.type == "cuda" else device


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
            value = args[1] if len(args) > 1 else None
            func(*args)
            return on(side(value), args[0]) if isinstance(value, Tensor) else None
        if name in ("to", "cuda", "cpu"):
            return self._move(func, name, args, kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in ("numpy", "__array__", "__dlpack__") and side(args[0]) == GPU:
            raise Refused("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if WAITS.fullmatch(name) and any(side(tensor) == GPU for tensor in tensors):
            self._cross("wait")
        if FACTORIES.fullmatch(name):
            return self._make(func, name, args, kwargs)
        if kwargs.get("device") is not None:
            kwargs["device"] = CPU if pretended(kwargs["device"]) == GPU else kwargs["device"]
        here = self._require_one_side(name, args, kwargs, tensors)
        if here == GPU:
            self._require_exact(name, args)
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
        if kwargs.get("device") is not None:
            target = pretended(kwargs["device"])
            kwargs["device"] = CPU if target == GPU else target
        result = source if name == "cuda" else func(source, *rest, **kwargs)
        if side(source) != target and target.type != "meta":
            self._cross("to the GPU" if target == GPU else "to the host")
            if result is source:
                result = source.detach().clone() if isinstance(source, torch.nn.Parameter) else source.clone()
        return on(target, result)

    def _make(self, func, name, args, kwargs):
        given = args[0] if args and isinstance(args[0], Tensor) else None
        target = side(given) if given is not None else CPU
        if kwargs.get("device") is not None:
            target = pretended(kwargs["device"])
            kwargs["device"] = CPU if target == GPU else target
        self._require_generator(target, kwargs)
        from_host = name in ("tensor", "as_tensor", "asarray", "new_tensor")
        if from_host and side(given) != target if given is not None else from_host and target == GPU:
            self._cross("to the GPU" if target == GPU else "to the host")
        result = func(*args, **kwargs)
        return result if result is given and side(given) == target else on(target, self._other(result, given))

    @staticmethod
    def _other(result: Tensor, given: Tensor | None) -> Tensor:
        return result.clone() if result is given else result

    def _require_one_side(self, name, args, kwargs, tensors) -> torch.device:
        """Where the result is; raises where operands are on both sides and CUDA does not help."""
        sides = {side(tensor) for tensor in tensors} or {CPU}
        in_place = tensors and (name == "__setitem__" or (name.endswith("_") and not name.endswith("__")))
        into = side(tensors[0]) if in_place else None
        self._require_generator(into or (GPU if GPU in sides else CPU), kwargs)
        if len(sides) == 1:
            return sides.pop()
        numbers = all(tensor.ndim == 0 for tensor in tensors if side(tensor) == CPU)
        plain = name.strip("_")
        if name in ("copy_", "__setitem__", "__getitem__"):
            allowed = True
            if name != "copy_":
                indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
                value = args[2] if name == "__setitem__" and isinstance(args[2], Tensor) else None
                mixed_value = value is not None and side(value) != side(args[0]) and value.ndim > 0
                allowed = all(side(index) == CPU or side(args[0]) == GPU for index in indices)
                allowed = allowed and not (indices and mixed_value)
            self._cross("to the GPU" if side(args[0]) == GPU else "to the host")
        else:
            allowed = HOUSEKEEPING.fullmatch(name) or (ELEMENTWISE.fullmatch(plain) and numbers and into in (None, GPU))
        if not allowed:
            found = ", ".join(f"{side(tensor)} {list(tensor.shape)}" for tensor in tensors)
            raise Refused(f"Expected all tensors to be on the same device, but {name} got {found}")
        return into or GPU

    @staticmethod
    def _require_generator(target: torch.device, kwargs) -> None:
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != target.type:
            raise Refused(f"Expected a {target.type!r} device type for generator but found {generator.device.type!r}")

    @staticmethod
    def _require_exact(name, args) -> None:
        if name == "conv2d" and args[0].dtype == torch.float32 and torch.backends.cudnn.conv.fp32_precision == "tf32":
            raise Refused("a float32 convolution that CUDA computes in TF32")
        if not torch.are_deterministic_algorithms_enabled():
            return
        weighted = name == "bincount" and len(args) > 1 and args[1] is not None
        if (name == "cumsum" and args[0].is_floating_point()) or weighted or name in ("histc", "kthvalue", "put_"):
            raise Refused(f"{name} does not have a deterministic implementation")

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


@contextmanager
def absent_gpu(nccl: bool = False) -> Iterator[AbsentGPU]:
    """Pretend a GPU; with ``nccl`` collectives refuse CPU tensors, as NCCL does, and travel by gloo."""
    load, as_subclass = torch.load, Tensor.as_subclass

    def loaded(file, map_location=None, **kwargs):
        moved = map_location is not None and pretended(map_location) == GPU
        value = load(file, map_location="cpu" if moved else map_location, **kwargs)
        return on(GPU, value) if moved else value

    with ExitStack() as stack:
        patches = {"max_memory_allocated": lambda device=None: 0, "get_device_name": lambda device=None: "absent"}
        patches |= dict.fromkeys(("synchronize", "reset_peak_memory_stats", "set_device"), lambda device=None: None)
        for name, value in patches.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch, "load", loaded))
        stack.enter_context(mock.patch.object(torch, "Generator", PretendedGenerator))
        subclass = lambda tensor, cls: on(side(tensor), as_subclass(tensor, cls))  # noqa: E731
        stack.enter_context(mock.patch.object(Tensor, "as_subclass", subclass))
        for name in ("all_reduce", "broadcast", "all_gather") if nccl else ():
            stack.enter_context(mock.patch.object(dist, name, _refusing(getattr(dist, name))))
        if nccl:
            start = dist.init_process_group
            gloo = lambda backend=None, **kwargs: start("gloo", **kwargs)  # noqa: E731
            stack.enter_context(mock.patch.object(dist, "init_process_group", gloo))
        yield stack.enter_context(AbsentGPU())


def _refusing(collective):
    def guarded(*args, **kwargs):
        # ignite moves its tensors to the backend's device itself, and counts processes in a group of gloo.
        by_ignite = "/ignite/" in sys._getframe(1).f_code.co_filename
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and side(leaf) == CPU and not by_ignite:
                raise Refused(f"No backend type associated with device type cpu: {collective.__name__}")
        return collective(*args, **kwargs)

    return guarded
