"""NCCL's rule for collectives, which gloo carries."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_leaves

from devices.rules import BARE, CPU, Refused, side


@contextmanager
def nccl() -> Iterator[None]:
    """Within, process groups are gloo's, and collectives refuse CPU tensors."""
    start = dist.init_process_group
    with ExitStack() as stack:
        for name in ("all_reduce", "broadcast", "all_gather", "send", "recv"):
            stack.enter_context(mock.patch.object(dist, name, _refusing(getattr(dist, name))))
        gloo = lambda backend=None, **kwargs: start("gloo", **kwargs)  # noqa: E731
        stack.enter_context(mock.patch.object(dist, "init_process_group", gloo))
        yield


def _refusing(collective):
    def guarded(*args, **kwargs):
        # ignite moves its tensors to the backend's device itself, and counts processes in a group of gloo.
        by_ignite = "/ignite/" in sys._getframe(1).f_code.co_filename
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and side(leaf) == CPU and not by_ignite:
                raise Refused(f"No backend type associated with device type cpu: {collective.__name__}")
            if isinstance(leaf, Tensor) and leaf.dtype in (torch.int16, *BARE):
                raise Refused(f"Input tensor data type is not supported for NCCL process group: {leaf.dtype}")
            if isinstance(leaf, Tensor) and not leaf.is_contiguous():
                raise Refused("Tensors must be contiguous")
        return collective(*args, **kwargs)

    return guarded
