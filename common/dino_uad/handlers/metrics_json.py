"""``metrics.json``: what an evaluation measured, with what, in one file a script can read."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from dino_uad import parallel
from dino_uad.detector import AnomalyDetector
from dino_uad.files import atomic_path
from dino_uad.measure import peak_megabytes
from dino_uad.metrics import is_anomalous
from dino_uad.versions import package_versions
from dino_uad.wording import plural


class MetricsJson:
    """Writes the metrics of an evaluator, the median time per image, and what they were measured with.

    Args:
        path: the JSON file.
        network: the evaluated detector.
        settings: more facts about the run (JSON types), e.g. the seed and the data set's folder name.
    """

    def __init__(self, path: str, network: AnomalyDetector, settings: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.network = network
        self.settings = dict(settings or {})
        self.seconds: list[float] = []
        self.images = {"normal": 0, "anomalous": 0}

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.count)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Forget a former run."""
        self.seconds, self.images = [], {"normal": 0, "anomalous": 0}

    def count(self, engine: Engine) -> None:
        """Count the images of a batch and note their time."""
        for item in engine.state.output:
            self.images["anomalous" if is_anomalous(item) else "normal"] += 1
            self.seconds.append(item["seconds"])

    def write(self, engine: Engine) -> None:
        """Write the file; NaN becomes null, which is what JSON has."""
        counts, times = zip(*parallel.gather_objects((self.images, self.seconds)), strict=True)
        if parallel.rank() > 0:
            return
        seconds = [value for part in times for value in part]
        metrics = {name: float(value) for name, value in sorted(engine.state.metrics.items()) if np.isscalar(value)}
        result = {
            "metrics": {name: None if math.isnan(value) else value for name, value in metrics.items()},
            "images": {kind: sum(part[kind] for part in counts) for kind in self.images},
            "seconds_per_image": float(np.median(seconds)) if seconds else None,
            "peak_memory_mb": peak_megabytes(engine.state.device),
            "model": self.network.facts,
            "settings": self.settings,
            "versions": package_versions(),
            "machine": {"python": platform.python_version(), "device": device_name(engine.state.device)},
        }
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor with the number of threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {plural(torch.get_num_threads(), 'thread')}"
