"""What CUDA refuses, as far as it can be told from the operands of a function."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
# Elementwise functions take a CPU tensor without axes for a number.
ELEMENTWISE = re.compile(
    "add|sub|mul|div|true_divide|rsub|pow|where|minimum|maximum|clamp|clamp_min|clamp_max|eq|ne|lt|le|gt|ge|lerp|atan2|"
    "fmod|remainder|floor_divide|masked_fill|addcmul|(logical|bitwise)_(and|or|left_shift|right_shift)|and|or|xor|"
    "[lr]shift|[ir]?(add|sub|mul|truediv|pow)"
)
HOUSEKEEPING = re.compile("backward|register_hook|set_|swap_tensors|_has_compatible_shallow_copy_type|is_same_size")
# What torch.use_deterministic_algorithms lists as refused on CUDA, always or where a gradient is wanted.
UNORDERED = re.compile("histc|kthvalue|put_|nll_loss|cross_entropy|max_unpool[123]d")
UNORDERED_BACKWARD = re.compile(
    "(adaptive_(avg|max)|fractional_max)_?pool[23]d(_with_indices)?|(avg|max)_pool3d|interpolate|grid_sample|ctc_loss"
)
PRODUCTS = re.compile("_*r?matmul_*|mm|bmm|mv|dot|linear|einsum|(add|badd)b?mm_?|addmv_?|bilinear")
NO_KERNEL = ("histogram", "histogramdd")
SORTS = re.compile("sort|msort|argsort|(nan)?quantile")
BARE = (torch.uint16, torch.uint32, torch.uint64)  # stored and converted, hardly ever computed with


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


def where_it_is(name: str, args: tuple, tensors: list[Tensor]) -> tuple[torch.device, bool]:
    """The side of a function's result, and whether operands cross; raises where CUDA does not take both sides."""
    sides = {side(tensor) for tensor in tensors} or {CPU}
    if len(sides) == 1:
        return sides.pop(), False
    in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    into = side(tensors[0]) if in_place else GPU
    if name in ("copy_", "__setitem__", "__getitem__"):
        allowed = name == "copy_" or _indexed(name, args)
    elif HOUSEKEEPING.fullmatch(name):
        allowed = True
    else:
        numbers = all(tensor.ndim == 0 for tensor in tensors if side(tensor) == CPU)
        allowed = ELEMENTWISE.fullmatch(name.strip("_")) and numbers and into == GPU
    if not allowed:
        found = ", ".join(f"{side(tensor)} {list(tensor.shape)}" for tensor in tensors)
        raise Refused(f"Expected all tensors to be on the same device, but {name} got {found}")
    return into, name in ("copy_", "__setitem__", "__getitem__")


def _indexed(name: str, args: tuple) -> bool:
    """Whether an index of one side may be used on a tensor of the other, and a value be put there."""
    indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
    value = args[2] if name == "__setitem__" and isinstance(args[2], Tensor) else None
    far_value = value is not None and side(value) != side(args[0]) and value.ndim > 0
    return all(side(index) == CPU or side(args[0]) == GPU for index in indices) and not (indices and far_value)


def require_generator(target: torch.device, generator: torch.Generator | None) -> None:
    if generator is not None and generator.device.type != target.type:
        raise Refused(f"Expected a {target.type!r} device type for generator but found {generator.device.type!r}")


def require_kernel(name: str, args: tuple, tensors: list[Tensor]) -> None:
    """Nothing that CUDA has no kernel for, though the CPU has one."""
    kinds = {tensor.dtype for tensor in tensors}
    whole = [str(kind) for kind in kinds if not kind.is_floating_point and not kind.is_complex]
    if name in NO_KERNEL or (PRODUCTS.fullmatch(name) and whole):
        raise Refused(f"{name!r} not implemented for {', '.join(whole) or 'CUDA'}")
    if ELEMENTWISE.fullmatch(name.strip("_")) and kinds & {*BARE}:
        raise Refused(f"{name!r} not implemented for {', '.join(whole)}")
    if name == "_int_mm":
        (rows, inner), columns = args[0].shape, args[1].shape[1]
        if rows <= 16 or inner % 8 or columns % 8:
            raise Refused(f"_int_mm takes more than 16 rows and multiples of 8, found {rows}×{inner}×{columns}")
    if SORTS.fullmatch(name) and args[0].is_floating_point() and (args[0].isnan() & args[0].signbit()).any():
        # Seen on an H100 with torch 2.11: quantiles of 1000 numbers were NaN where the CPU leaves NaNs out.
        raise Refused(f"{name} puts a NaN with the sign of -0, which 0 / 0 gives, before all numbers")


def require_exact(name: str, args: tuple, kwargs: dict, tensors: list[Tensor]) -> None:
    """No float32 product in TF32, nothing that has no order while deterministic algorithms are asked for."""
    rounds = re.fullmatch(r"conv(_transpose)?\dd", name) and torch.backends.cudnn.conv.fp32_precision == "tf32"
    if rounds and any((tensor.detach().float().view(torch.int32) & 0x1FFF).any() for tensor in args[:2]):
        raise Refused("a float32 convolution of numbers that TF32 cuts")
    if not torch.are_deterministic_algorithms_enabled():
        return
    weighted = name == "bincount" and ((len(args) > 1 and args[1] is not None) or kwargs.get("weights") is not None)
    floats = name in ("cumsum", "cumsum_") and args[0].is_floating_point()
    median = name in ("median", "nanmedian") and (len(args) > 1 or "dim" in kwargs)
    product = name.startswith("scatter_reduce") and "prod" in (*args, *kwargs.values())
    graded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    backward = graded and UNORDERED_BACKWARD.fullmatch(name) and kwargs.get("mode") != "nearest"
    if UNORDERED.fullmatch(name) or weighted or floats or median or product or backward:
        raise Refused(f"{name} does not have a deterministic implementation")
