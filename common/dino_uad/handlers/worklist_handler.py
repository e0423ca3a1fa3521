"""Feeds an inference run's worklist: a row, and a thumbnail, for every scan as it is done."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import product
from typing import Any

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.transforms import Compose
from torch import Tensor

from dino_uad.detector import DRAWN, FALSE_POSITIVE_RATES, AnomalyDetector
from dino_uad.findings import ScanGrid
from dino_uad.measure import device_name, peak_megabytes
from dino_uad.transforms import NUMBERS, SaveDicomd, SaveMapd, ThresholdMapd, looks, nothing_scored
from dino_uad.versions import package_versions
from dino_uad.worklist import Glance, Worklist, colours, marked_plane, thumbnail

logger = logging.getLogger(__name__)


class WorklistHandler:
    """Watches a :class:`~dino_uad.engines.scan.ScanEvaluator`; one scan at a time is in memory.

    Args:
        worklist: where rows go.
        network: the detector.
        postprocessing: of the evaluator; it knows the thresholds, and is told which names of results are taken.
    """

    def __init__(self, worklist: Worklist, network: AnomalyDetector, postprocessing: Callable) -> None:
        self.worklist, self.network = worklist, network
        steps = postprocessing.flatten().transforms if isinstance(postprocessing, Compose) else [postprocessing]
        self._savers = [step for step in steps if isinstance(step, SaveMapd | SaveDicomd)]
        self._threshold = next((step for step in steps if isinstance(step, ThresholdMapd)), None)
        self._glances: list[Glance] = []
        self._unlike: list[list[str]] = []
        self._started = self._last = time.perf_counter()
        self._at = ""

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator, after the handler that loads the model."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.look)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Begin to count time, and keep the names of results of former runs from being given away."""
        self._started = self._last = time.perf_counter()
        self._at = datetime.now().astimezone().isoformat(timespec="seconds")
        self.worklist.start()
        for saver in self._savers:
            saver.claim_names(self.worklist.store.claim)
        for name, source in self.worklist.sources().items():
            for saver in self._savers:
                saver.reserve(name, source)

    def look(self, engine: Engine) -> None:
        """Keep the maps of a batch, small, while they are upright; which slice to show its findings will tell."""
        images, maps = engine.state.output["image"], engine.state.output["pred"]
        self._unlike = [self._unlike_the_fit(image) for image in images]
        self._glances = [Glance.of(image, one) for image, one in zip(images, maps, strict=True)]

    def add(self, engine: Engine) -> None:
        """Take the rows of a batch."""
        now = time.perf_counter()
        items, failed = engine.state.output or [], getattr(engine.state, "failed", [])
        seconds, self._last = (now - self._last) / max(len(items) + len(failed), 1), now
        for item, glance, unlike in zip(items, self._glances, self._unlike, strict=True):
            picture = self._picture(item, glance)
            told = {**item, "notes": [*item.get("notes", []), *self._too_few_pixels(item["image"])]}
            self.worklist.add(source_of(item["image"]), told, seconds, picture, unlike)
        for item in failed:
            self.worklist.fail(item["image"], item["failed"])
        nothing = [source_of(item["image"]) for item in items if nothing_scored(item)]
        for source, saver in product([*nothing, *(item["image"] for item in failed)], self._savers):
            saver.discard(source)
        self._glances, self._unlike = [], []
        engine.state.output = engine.state.batch = None

    def _picture(self, item: Mapping[str, Any], glance: Glance) -> bytes:
        """The thumbnail: the slice where the first finding peaks, else the map, with what the label map marks there."""
        image, findings = item["image"], item.get("findings", [])
        if not findings:
            return thumbnail(image, glance, self._colours, glance.highest)
        axcodes = self._threshold.axcodes
        grid = ScanGrid.from_meta(image.meta, axcodes)
        number = findings[0].slice
        marked = marked_plane(item[NUMBERS], image, grid, axcodes, number)
        return thumbnail(image, glance, self._colours, 0 if number is None else grid.slice_index(number), marked)

    @property
    def _colours(self) -> tuple[float, float]:
        """The scores at which the maps in thumbnails begin to be coloured, and are brightest."""
        thresholds = None if self._threshold is None else self._threshold.thresholds
        return colours(float(self.network.thresholds[DRAWN]), thresholds)

    def _unlike_the_fit(self, image: Tensor) -> list[str]:
        """In what a scan ``[C,H,W]`` or ``[C,H,W,D]`` is outside of what the calibration scans were."""
        plain = image.as_subclass(Tensor).cpu()
        slices = plain.movedim(-1, 0) if plain.ndim == 4 else plain[None]
        return self.network.normal_scans.seen.unlike(*looks(slices, image.meta, self.network.axcodes))

    def _too_few_pixels(self, image: Tensor) -> list[str]:
        """A note where a scan has fewer pixels along a side than the network has patches: what it scores is made up."""
        grid = ScanGrid.from_meta(image.meta, self.network.axcodes)
        sides = [grid.shape[axis] for axis in grid.in_plane]
        if min(sides) >= min(self.network.grid_size):
            return []
        size = " x ".join(map(str, sides))
        return [f"only {size} pixels, enlarged to {' x '.join(map(str, self.network.image_size))}: is this a scan?"]

    def finish(self, engine: Engine) -> None:
        """Write the tables and the report."""
        self.worklist.finish(self._facts(engine), self.network.normal_scans)

    def _facts(self, engine: Engine) -> dict[str, Any]:
        normal = self.network.normal_scans
        point = None if self._threshold is None else self._threshold.point
        return {
            "model": self.network.facts,
            "options": self.worklist.options,
            "settings": self.worklist.settings,
            "thresholds": {
                **{
                    f"{100 * r:g} %": _number(t)
                    for r, t in zip(FALSE_POSITIVE_RATES, self.network.thresholds, strict=True)
                },
                **{name: None if math.isnan(t) else t for name, t in normal.free_response().items()},
            },
            "calibration": normal.promises([point]) if normal.scans.calibrated else ["not calibrated: no p-values"],
            "map_colours": list(self._colours),
            "started": self._at,
            "seconds": time.perf_counter() - self._started,
            "peak_memory_mb": peak_megabytes(engine.state.device),
            "versions": package_versions() | {"python": platform.python_version()},
            "device": device_name(engine.state.device),
        }


def source_of(image: Tensor) -> str:
    """The file a ``MetaTensor`` was read from."""
    return str(image.meta["filename_or_obj"])


def _number(value: Tensor) -> float | None:
    return None if value.isnan() else float(value)
