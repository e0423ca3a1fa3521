"""From volumes to the 2-D slices the networks see."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import HistogramNormalize, MapTransform
from monai.utils import convert_to_dst_type
from torch import Tensor

from dino_uad.settings import require_choice, require_count, require_number
from dino_uad.transforms.mask_values import BINARY, marked
from dino_uad.transforms.slice_choice import (
    ANNOTATED,
    choose,
    foreground_share,
    little_foreground,
    log_left_out,
    preset_settings,
    slice_range,
    source,
)

LABEL = "label"
"""Item key of the annotation."""


class ExtractSlicesd(MapTransform):
    """Turns a volume ``[C,H,W,D]`` into a list of dictionaries of 2-D slices ``[C,H,W]``, in slice order.

    A 2-D image ``[C,H,W]`` passes unchanged as a list of one, or of none if it is annotated and ``drop_anomalous`` is
    set; the other arguments concern volumes. Each slice keeps the source file and the affine of its plane in its meta
    data and has ``"slice_index"`` (along ``axis`` of the volume given; None for a 2-D image). The list may be empty.
    MONAI's ``Compose`` applies the transforms that follow to each slice.

    Args:
        keys: the image, and ``label`` where annotations count; the first is the image.
        axis: spatial axis of the slices, -1 for the last. The others keep their order.
        start: first slice.
        stop: slice before which to stop; None is the end.
        stride: take every stride-th slice.
        min_foreground: leave out slices in which a smaller fraction of the image's pixels is above 0.
        drop_anomalous: leave out slices with an annotated anomaly.
        anomalous_above: label values above this are anomalies; labels become binary accordingly.
        organ_masked: set the image to 0 where the label is 0 (outside the organ) and equalise its histogram inside;
            images must be in [0, 1].
        preset: ``"brats_flair"`` or ``"liver_ct"``: sets the arguments in
            :data:`~dino_uad.transforms.slice_choice.PRESETS`, over the ones given.

    Raises:
        ValueError: unknown preset, an empty range, a label of another size, or no organ label where it is needed.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        axis: int = -1,
        start: int = 0,
        stop: int | None = None,
        stride: int = 1,
        min_foreground: float = 0.0,
        drop_anomalous: bool = False,
        anomalous_above: float = 0.0,
        organ_masked: bool = False,
        preset: str | None = None,
        allow_missing_keys: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        require_count("stride", stride)
        require_choice("axis", axis, (-1, 0, 1, 2))
        require_number("min_foreground", min_foreground, 0, 1)
        self.axis = axis % 3
        self.start, self.stop, self.stride = start, stop, stride
        self.min_foreground = min_foreground
        self.drop_anomalous = drop_anomalous
        self.anomalous_above = anomalous_above
        self.organ_masked = organ_masked
        for name, value in preset_settings(preset).items():
            setattr(self, name, value)
        self.equalise = HistogramNormalize(num_bins=256, min=0, max=1)

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        image = data[self.first_key(data)]
        if image.ndim == 3:
            return [] if self.drop_anomalous and self._annotated(data) else [{**data, "slice_index": None}]
        indices, left_out = slice_range(image, self.axis, self.start, self.stop, self.stride)
        self._check_label(data, image)
        data = self._with_binary_label(data)
        kept = choose((self._slice(data, index) for index in indices), self._reason, left_out)
        log_left_out(image, self.axis, left_out, "slices left out")
        return kept

    def _check_label(self, data: Mapping[Hashable, Any], image: Tensor) -> None:
        label = self._label(data)
        if label is None and self.organ_masked:
            raise ValueError(f"{source(image)}: no label found; masking the organ needs one (1 organ, 2 anomaly)")
        if self.organ_masked and getattr(label, "meta", {}).get(BINARY, False):
            raise ValueError(
                f"{source(label)}: the label was made binary, but organ and anomaly must be told apart (1 and 2); "
                "leave anomalous_labels out with this preset, and put FillLabeld after ExtractSlicesd"
            )
        if label is not None and label.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"{source(label)}: the label is {tuple(label.shape[1:])}, its image {tuple(image.shape[1:])}; "
                "expected equal sizes. Resample the label to the image's grid."
            )

    def _with_binary_label(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """The whole volume decides what its label marks; where labels above a value count, they say it themselves."""
        label = self._label(data)
        if label is None or self.organ_masked or self.anomalous_above:
            return data
        return {**data, LABEL: convert_to_dst_type(marked(label), label, dtype=torch.uint8)[0]}

    def _slice(self, data: Mapping[Hashable, Any], index: int) -> dict[Hashable, Any]:
        item = {**data, "slice_index": index}
        for key in self.key_iterator(data):
            item[key] = take_slice(data[key], self.axis, index)
        label = self._label(item)
        if label is not None:
            if self.organ_masked:
                key = self.first_key(data)
                item[key] = self._organ(item[key], label > 0)
            item[LABEL] = (label > self.anomalous_above).to(label.dtype)
        return item

    def _organ(self, image: Tensor, organ: Tensor) -> Tensor:
        organ = organ.as_subclass(Tensor).any(dim=0)
        if not organ.any():
            return image * 0
        equalised = self.equalise(image, mask=organ[None].expand(image.shape).cpu().numpy())
        return equalised * organ

    def _reason(self, item: Mapping[Hashable, Any]) -> str | None:
        """Why a slice is left out; None if it is not."""
        annotated = self._annotated(item)
        if annotated and self.drop_anomalous:
            return ANNOTATED
        reason = little_foreground(float(foreground_share(item[self.first_key(item)])), self.min_foreground)
        return f"{reason} {ANNOTATED}" if reason and annotated else reason

    def _label(self, data: Mapping[Hashable, Any]) -> Tensor | None:
        return data.get(LABEL) if LABEL in self.keys else None

    def _annotated(self, item: Mapping[Hashable, Any]) -> bool:
        label = self._label(item)
        return label is not None and bool((label > 0).any())


def take_slice(volume: Tensor, axis: int, index: int) -> Tensor:
    """Return slice ``[C,H,W]`` of ``[C,X,Y,Z]`` along spatial ``axis``, its affine that of the plane in space.

    It shares the volume's memory: all slices take no more than the volume they come from.
    """
    plane = volume.as_subclass(Tensor).select(1 + axis, index)
    if not isinstance(volume, MetaTensor):
        return plane
    affine = volume.affine.clone()
    affine[:3, 3] += index * affine[:3, axis]
    order = [other for other in range(3) if other != axis]
    meta = {**volume.meta, "affine": affine[:, [*order, axis, 3]], "spatial_shape": tuple(plane.shape[1:])}
    return MetaTensor(plane, meta=meta)
