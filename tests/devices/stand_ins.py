"""What torch says of a GPU in places that no function call on a tensor passes, with the pretended one's answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.nn.utils import clip_grad

from devices.rules import GPU, Refused, on, pretended, side

_load, _as_subclass = torch.load, Tensor.as_subclass
_is_autocast_enabled, _get_autocast_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype
_group_tensors = clip_grad._group_tensors_by_device_and_dtype


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


def _loaded(file, map_location=None, **kwargs):
    moved = map_location is not None and pretended(map_location) == GPU
    value = _load(file, map_location="cpu" if moved else map_location, **kwargs)
    return on(GPU, value) if moved else value


def _grouped_by_side(lists):  # below Python, where devices are the real ones
    return {(side(group[0][0]), key[1]): (group, rest) for key, (group, rest) in _group_tensors(lists).items()}


def _pinned(tensor):  # also in threads, which a mode does not reach
    if side(tensor) == GPU:
        raise Refused("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    return tensor.clone()


ANSWERS = {
    "is_available": True,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": "absent",
    "is_bf16_supported": True,
    "max_memory_allocated": 0,
    "mem_get_info": (8 << 30, 16 << 30),
    "synchronize": None,
    "reset_peak_memory_stats": None,
    "set_device": None,
}
PATCHES = [
    (torch, "load", _loaded),
    (torch, "Generator", PretendedGenerator),
    (torch, "autocast", PretendedAutocast),
    (torch, "is_autocast_enabled", lambda kind=None: _is_autocast_enabled("cpu")),
    (torch, "get_autocast_dtype", lambda kind: _get_autocast_dtype("cpu")),
    (Tensor, "pin_memory", _pinned),
    (Tensor, "as_subclass", lambda tensor, cls: on(side(tensor), _as_subclass(tensor, cls))),
    (clip_grad, "_group_tensors_by_device_and_dtype", _grouped_by_side),
    *((torch.cuda, name, lambda *_, answer=answer, **__: answer) for name, answer in ANSWERS.items()),
]


@contextmanager
def stand_ins() -> Iterator[None]:
    """Within, torch answers so."""
    with ExitStack() as stack:
        for owner, name, value in PATCHES:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield
