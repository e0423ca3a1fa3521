"""``report.html`` and ``figures/``: what an evaluation found, for a person to look at."""

from __future__ import annotations

import logging
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from dino_uad import parallel
from dino_uad.detector import DRAWN, AnomalyDetector
from dino_uad.measure import device_name, peak_megabytes
from dino_uad.report import Collector, as_text
from dino_uad.versions import package_versions

logger = logging.getLogger(__name__)


class ReportHandler:
    """Watches a :class:`~dino_uad.engines.evaluate.DetectorEvaluator` and writes a self-contained page at its end.

    Memory is bounded: numbers per image, one histogram, and the pictures of a few dozen candidate cases.

    Args:
        output_dir: where ``report.html`` and ``figures/*.png`` go.
        network: the evaluated detector.
        settings: more facts about the run to list, e.g. the seed.
        training_data: function that lists the training images; methods that compare with them show them.
        training_transform: the fit's preprocessing of such an entry.
        anonymous_names: number images, patients and training images; leave out the settings and the command, which
            may name folders.
    """

    def __init__(
        self,
        output_dir: str,
        network: AnomalyDetector,
        settings: Mapping[str, Any] | None = None,
        training_data: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
        training_transform: Callable | None = None,
        anonymous_names: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.network = network
        self.settings = dict(settings or {})
        self.training_data, self.training_transform = training_data, training_transform
        self.anonymous_names = anonymous_names
        self.collector = Collector()
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Forget a former run; the thresholds are those of the checkpoint by now."""
        self._started = time.perf_counter()
        self.collector = Collector(float(self.network.pixel_thresholds[DRAWN]), self.anonymous_names)

    def collect(self, engine: Engine) -> None:
        """Take in one batch."""
        self.collector.add(engine.state.output)

    def write(self, engine: Engine) -> None:
        """Write the page and the figures; under ``torch.distributed`` the first rank does."""
        self.collector.gather()
        if parallel.rank() > 0 or not self.collector.rows:
            return
        from dino_uad.report import TrainingPictures, build_page, write_figures, write_page

        training = None
        if self.training_data is not None and self.training_transform is not None:
            training = TrainingPictures(self.training_data, self.training_transform, self.anonymous_names)
        page = build_page(self.collector, engine, self.network, self._run_facts(engine), training, self._command())
        write_figures(page, self.output_dir / "figures")
        write_page(page, self.output_dir / "report.html")
        logger.info("wrote report.html and figures/")

    def _run_facts(self, engine: Engine) -> dict[str, dict[str, Any]]:
        seconds = [row.seconds for row in self.collector.rows]
        settings = self.network.head.settings().items()
        head = {key: value for key, value in settings if isinstance(value, str | int | float | bool)}
        facts = {
            "Model": {key: value for key, value in self.network.facts.items() if key != "preprocessing"}
            | {f"preprocessing: {key}": value for key, value in self.network.facts["preprocessing"].items()},
            "Method settings": head,
            "Settings": {} if self.anonymous_names else self.settings,
            "Time and memory": {
                "network, seconds per image (median)": f"{np.median(seconds):.3g}",
                "whole evaluation, seconds": f"{time.perf_counter() - self._started:.3g}",
                "peak memory, MB": f"{peak_megabytes(engine.state.device):,.0f}",
                "device": device_name(engine.state.device),
            },
            "Versions": package_versions() | {"python": platform.python_version()},
        }
        return {title: {k: as_text(v) for k, v in table.items() if v != {}} for title, table in facts.items() if table}

    def _command(self) -> str:
        return "" if self.anonymous_names else " ".join(["python", *map(_quoted, sys.orig_argv[1:])])


def _quoted(argument: str) -> str:
    """Quote for a shell; lists of configs hold single quotes, which are easier to read in double ones."""
    if "'" in argument and not set(argument) & set('"$`\\!'):
        return f'"{argument}"'
    return shlex.quote(argument)
