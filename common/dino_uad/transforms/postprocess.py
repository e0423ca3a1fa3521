"""From the anomaly map to what is saved, shown and measured."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from dino_uad.detector import FALSE_POSITIVE_RATES

MOSTLY = 0.8  # share of an image; a label above it is likely normal tissue marked instead of the anomaly

logger = logging.getLogger(__name__)


def operating_point(value: Any) -> int:
    """Index into :data:`FALSE_POSITIVE_RATES` of a rate given as 0.05, "0.05" or "5 %", or as a list starting with one.

    MONAI Label shows a list as a drop-down and may send back the list, a string or a number.

    Raises:
        ValueError: the rate is not one that was calibrated.
    """
    first = value[0] if isinstance(value, list | tuple) and value else value
    try:
        text = str(first).strip()
        rate = float(text.rstrip("% ")) / (100 if text.endswith("%") else 1)
        return next(i for i, known in enumerate(FALSE_POSITIVE_RATES) if abs(known - rate) < 1e-6)
    except (ValueError, StopIteration):
        known = ", ".join(f"{rate:g}" for rate in FALSE_POSITIVE_RATES)
        raise ValueError(f"false positive rate {value!r} found; this model is calibrated for {known}") from None


def output_kind(value: Any) -> str:
    """``"label map"`` or ``"anomaly map"``, given as such or as a list (a drop-down) that starts with it.

    Raises:
        ValueError: it is neither.
    """
    first = value[0] if isinstance(value, list | tuple) and value else value
    if first not in ("label map", "anomaly map"):
        raise ValueError(f"output {value!r} found; expected 'label map' or 'anomaly map'")
    return first


class ThresholdMapd(MapTransform):
    """Turns an anomaly map ``[1,...]`` into a uint8 label map: 1 where it reaches the calibrated threshold.

    The threshold is read from the model file when the first map arrives: MONAI Label builds postprocessing apart from
    the network, so there is no loaded network to ask.

    Args:
        keys: maps to threshold.
        model: the ``model.pt`` with the calibrated thresholds.
        false_positive_rate: operating point, one of 0.10, 0.05, 0.01 (see :func:`operating_point`).
        output: ``"label map"``, or ``"anomaly map"`` to pass the float map through, for clients that want to see it;
            a list (MONAI Label's drop-down) stands for its first entry.

    Raises:
        ValueError: the rate is not calibrated, or ``output`` is neither of the two.
    """

    def __init__(
        self,
        keys: KeysCollection,
        model: str,
        false_positive_rate: Any = 0.05,
        output: Any = "label map",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.model = Path(model)
        self.index = operating_point(false_positive_rate)
        self.output = output_kind(output)
        self._threshold: float | None = None

    @property
    def threshold(self) -> float:
        """The calibrated threshold; raises ValueError when the model file holds none."""
        if self._threshold is None:
            state = torch.load(self.model, map_location="cpu", weights_only=True, mmap=True)
            value = float(state["thresholds"][self.index]) if "thresholds" in state else float("nan")
            if value != value:
                raise ValueError(
                    f"{self.model.name}: no calibrated threshold found; fit with validation images (train.json)"
                )
            self._threshold = value
        return self._threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if self.output == "label map":
            for key in self.key_iterator(result):
                result[key] = (result[key] >= self.threshold).to(torch.uint8)
        return result


class ServedMapd(MapTransform):
    """Gives a map ``[1,...]`` the form that MONAI Label can write: no channel axis, pictures in 8 bit.

    The server writes a map in its image's format, and a PNG holds no float. The anomaly map ``[1,W,H]`` of a picture is
    scaled from its lowest to its highest score; volumes and label maps keep their values.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            served = result[key][0]
            if served.ndim == 2 and served.is_floating_point():
                low, high = float(served.min()), float(served.max())
                served = ((served - low) * (255 / max(high - low, 1e-12))).round().to(torch.uint8)
            result[key] = served
        return result


class FillLabeld(MapTransform):
    """Gives an image without a label file an all-zero one, and makes every label binary (``> 0``) uint8.

    Sets ``has_mask``: False where the data list calls an image anomalous (``anomalous: 1``) but there is no mask, so
    that pixel metrics leave it out.

    Args:
        keys: label items.
        reference_key: the image whose spatial shape a missing label takes, channel first.

    Raises:
        ValueError: label and image differ in size; both sizes are named.
    """

    def __init__(self, keys: KeysCollection, reference_key: str = "image") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.reference_key = reference_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        image = result[self.reference_key]
        for key in self.keys:
            if result.get(key) is None:
                result[key] = (image[:1] * 0).to(torch.uint8)
                result["has_mask"] = not result.get("anomalous")
                continue
            result["has_mask"] = True
            label = result[key].amax(dim=0, keepdim=True)
            if label.shape[1:] != image.shape[1:]:
                raise ValueError(
                    f"{_file(label, key)}: label of size {list(label.shape[1:])} found, its image has "
                    f"{list(image.shape[1:])}; expected equal sizes. Resample the label to the image's grid"
                )
            result[key] = (label > 0).to(torch.uint8)
            if result[key].float().mean() > MOSTLY:
                logger.warning(f"{_file(label, key)}: the label marks most of its image; is it inverted?")
        return result


def _file(label: torch.Tensor, key: Hashable) -> str:
    return Path(str(getattr(label, "meta", {}).get("filename_or_obj", key))).name
