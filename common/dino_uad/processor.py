"""What the processor does fast, asked once and in one place."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch


def cores() -> int:
    """Cores that this process may use, however many threads it has: the same for all ranks on a machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` is a processor that multiplies bfloat16 several times faster than float32.

    That takes instructions of its own: AMX (Intel from 2023 on) or AVX-512 BF16 (AMD from 2022 on, too). Without them
    torch converts and multiplies in float32, which is slower than float32 to begin with.
    """
    supported = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return device.type == "cpu" and supported


def half_precision_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a network in bfloat16 or float16 is no slower on ``device`` than in float32.

    A processor without such products emulates them, at several times the time of float32.
    """
    if device.type != "cpu":
        return True
    if dtype == torch.float16:
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return fast_bfloat16(device)


def multiplies_int8(device: torch.device) -> bool:
    """Whether products of 8-bit integers have instructions that oneDNN uses (from AVX2 on)."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.cpu._is_avx2_supported()


def int_mm_is_fast() -> bool:
    """Whether torch's own product of 8-bit integers uses VNNI instructions; without them it is a plain loop."""
    return torch.cpu._is_vnni_supported() and int_mm_is_exact()


@cache
def int_mm_is_exact() -> bool:
    """Whether ``torch._int_mm`` is exact; where oneDNN is told to do without VNNI, sums of two products saturate."""
    first, second = torch.full((32, 64), 127, dtype=torch.int8), torch.full((64, 32), 127, dtype=torch.int8)
    return bool((torch._int_mm(first, second) == 64 * 127**2).all())


@cache
def mkl_is_slow() -> bool:
    """Whether MKL, by which torch multiplies float32 matrices, leaves half of the vector width unused.

    It takes AVX-512 on Intel's processors only; oneDNN takes it wherever it is.
    """
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return libraries and torch.cpu._is_avx512_supported() and "AuthenticAMD" in _vendor()


def _vendor() -> str:
    """Who made the processor, somewhere in what the system says of it."""
    with suppress(OSError, StopIteration):  # no such file, no such line
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line for line in lines if line.startswith("vendor_id"))
    return platform.processor()
