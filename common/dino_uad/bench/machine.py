"""Where the numbers come from."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from dino_uad.processor import fast_bfloat16
from dino_uad.versions import installed_version

PACKAGES = ("monai", "numpy", "scikit-learn", "faiss-cpu", "transformers")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, memory, accelerator and versions; nothing that names the machine or its user."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": fast_bfloat16(torch.device("cpu")),
        # torch's own word for it tells the build (+cpu, +cu130), which the installed package's name may not.
        "versions": {"torch": str(torch.__version__)} | {n: found for n in PACKAGES if (found := installed_version(n))},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["accelerator"] = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    return facts


def load_per_core() -> float:
    """Running processes per core over the last minute; timings above about 1 were disturbed."""
    return round(psutil.getloadavg()[0] / (os.cpu_count() or 1), 2)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
