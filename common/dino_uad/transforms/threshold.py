"""From the anomaly map to the label map and the list of its findings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type
from numpy.typing import NDArray
from torch import Tensor

from dino_uad.detector import read_threshold
from dino_uad.findings import NO_SPACING, Finding, MinSize, ScanGrid, extract_findings
from dino_uad.transforms.choices import growth, operating_point, output_kind
from dino_uad.transforms.save import is_on_scan_grid, on_scan_grid

NUMBERS = "finding_numbers"
"""Item key of the numbered label map, an int16 array in the shape of the file."""

UNMEASURED = "findings have no volume, diameter or place in millimetres, and the maps' affine is approximate"
UNSTATED = "findings are measured in pixels or voxels and have no place in millimetres"


class ThresholdMapd(MapTransform):
    """Turns an anomaly map ``[1,...]`` on its file's grid into a label map, and lists what it marks.

    Each finding is a connected place that reaches the operating point's threshold somewhere, extends down to that of
    ``grow``, and is not smaller than ``min_size``. The list is put into the item as ``findings``, of
    :class:`~dino_uad.findings.Finding`, whatever ``output`` is, and their numbers as :data:`NUMBERS`. Where slices are
    not evenly spaced, ``notes`` of the item say that they have no sizes, and where the file states no size of its
    voxels, that they have no millimetres.

    The thresholds are read from the model file when the first map arrives: MONAI Label builds postprocessing apart from
    the network, so there is no loaded network to ask.

    Args:
        keys: maps to threshold; the last one's findings are listed.
        model: the ``model.pt`` with the calibrated thresholds.
        false_positive_rate: operating point (see :func:`~dino_uad.transforms.choices.operating_point`).
        grow: a more sensitive operating point down to which findings extend, or ``"off"``; a less sensitive one leaves
            them as they are.
        min_size: smallest finding, a number or text such as ``"0.1 ml"`` (see :class:`~dino_uad.findings.MinSize`).
        output: ``"label map"`` (uint8, 1 in every finding), ``"numbered findings"`` (int16, each finding's number), or
            ``"anomaly map"`` to pass the float map through, for clients that want to see it.
        axcodes: orientation of the network's volumes, whose last letter is the direction of the slices.

    Raises:
        ValueError: an option is none of these.
    """

    def __init__(
        self,
        keys: KeysCollection,
        model: str,
        false_positive_rate: Any = 0.05,
        grow: Any = "off",
        min_size: Any = 0,
        output: Any = "label map",
        axcodes: str = "PLS",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.model = Path(model)
        self.point, self.grow = operating_point(false_positive_rate), growth(grow)
        self.min_size = MinSize.parse(min_size)
        self.output = output_kind(output)
        self.axcodes = axcodes
        self._thresholds: tuple[float, float] | None = None

    @property
    def thresholds(self) -> tuple[float, float]:
        """Calibrated scores: what a finding reaches, and how far down it extends. ValueError where there are none."""
        if self._thresholds is None:
            high = read_threshold(self.model, self.point)
            # A rate that marks less than the point is no growth; a model of version 0.1 may not even have it.
            rates = isinstance(self.point, float) and isinstance(self.grow, float)
            less = self.grow is None or (rates and self.grow <= self.point)
            self._thresholds = high, high if less else min(high, read_threshold(self.model, self.grow))
        return self._thresholds

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            if not is_on_scan_grid(result[key]):
                # MONAI Label's scoring by dropout leaves Invertd out, and compares label maps on the network's grid.
                result[key] = (result[key] >= self.thresholds[0]).to(torch.uint8)
                continue
            result[NUMBERS], result["findings"] = self._findings(result[key])
            if uneven := result[key].meta.get("uneven_slices"):
                result["notes"] = [*result.get("notes", []), f"{uneven}: {UNMEASURED}"]
            if no_spacing := result[key].meta.get(NO_SPACING):
                result["notes"] = [*result.get("notes", []), f"{no_spacing}: {UNSTATED}"]
            if self.output != "anomaly map":
                dtype = torch.int16 if self.output == "numbered findings" else torch.uint8
                labels = torch.from_numpy(result[NUMBERS])
                shown = labels if self.output == "numbered findings" else labels > 0
                result[key] = convert_to_dst_type(shown.reshape(result[key].shape), result[key], dtype=dtype)[0]
        return result

    def _findings(self, anomaly_map: Tensor) -> tuple[NDArray[np.int16], list[Finding]]:
        grid = ScanGrid.from_meta(anomaly_map.meta, self.axcodes)
        labels, findings = extract_findings(on_scan_grid(anomaly_map), grid, *self.thresholds, self.min_size)
        if len(findings) > torch.iinfo(torch.int16).max:
            raise ValueError(f"{len(findings)} findings, more than a label map can number; raise min_size")
        return labels.astype(np.int16, copy=False), findings
