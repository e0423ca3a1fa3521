"""Which values of a label map mark anomalies, where the user names them: the others are tissue, such as organs."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor

from dino_uad.settings import require
from dino_uad.transforms.mask_values import BINARY, LABELS, SPREAD, in_patches, levels_of

WHOLE = 1e-2  # how far rounding, of 16 bits in float32 or of a NIfTI file's scaling, moves whole numbers


def checked_labels(value: Any) -> tuple[int, ...] | None:
    """The values in ``anomalous_labels``, each once, sorted; None where every value above 0 counts.

    Raises:
        ValueError: anything but whole numbers of at least 1.
    """
    if value is None:
        return None
    values = value if isinstance(value, list | tuple) else [value]
    valid = all(isinstance(one, Integral) and not isinstance(one, bool) and one >= 1 for one in values)
    expected = "whole numbers of at least 1, the values of masks that mark anomalies, such as [2] (0 is background)"
    require("anomalous_labels", value, bool(values) and valid, expected)
    return tuple(sorted({int(one) for one in values}))


def label_values(mask: MetaTensor) -> tuple[int, ...]:
    """The values of a label map ``[1,...]`` as its file stores them, sorted.

    Args:
        mask: from ``LoadScan``, whose meta data tell by what a picture's values were divided.

    Raises:
        ValueError: colours, or values as soft masks, probabilities and JPEG have.
    """
    plain = mask.as_tensor()
    if len(plain) > 1 and (plain != plain[:1]).any():
        raise _no_labels(mask, "has colours (those of a palette count as such)")
    levels = levels_of(plain[:1])
    whole = None if levels is None else _as_stored(levels, mask)
    if whole is None or not torch.allclose(whole, whole.round(), rtol=0, atol=WHOLE):
        raise _no_labels(mask, "has values that are no whole numbers, as soft masks and probabilities have")
    if float(whole.abs().max()) > LABELS and len(whole) > SPREAD and not in_patches(plain[:1]):
        raise _no_labels(mask, f"has {len(whole)} values that lie in no patches, as those of JPEG and soft masks")
    return tuple(int(value) for value in whole.round())


def with_labels(mask: MetaTensor, labels: Sequence[int]) -> MetaTensor:
    """The mask ``[1,...]`` as uint8: 1 where a label map has one of the ``labels``, else 0.

    Raises:
        ValueError: it is no label map (:func:`label_values`).
    """
    found = set(label_values(mask)) & set(labels)
    stored = _as_stored(mask.as_tensor()[:1], mask).round_()
    marks = torch.zeros(stored.shape, dtype=torch.bool)
    for label in found:
        marks |= stored == label
    return MetaTensor(marks.to(torch.uint8), meta={**mask.meta, BINARY: True})


def _as_stored(values: Tensor, mask: MetaTensor) -> Tensor:
    return values * float(mask.meta.get("type_range", 1.0))


def _no_labels(mask: MetaTensor, found: str) -> ValueError:
    return ValueError(
        f"{mask.meta['filename_or_obj']}: the mask {found}; expected a label map for anomalous_labels: a whole number "
        "for each kind of tissue. Save it so (grey PNG, NIfTI, NRRD or MHA), or leave the option out: without it all "
        "that a mask marks is an anomaly"
    )
