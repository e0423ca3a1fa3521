"""What the pixel metrics take: a batch ``[B,1,H,W]`` or a list of ``[1,H,W]`` of differing sizes, with their masks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

Maps = Tensor | Sequence[Tensor]
"""Anomaly maps or masks: one tensor with a batch axis, or a sequence of tensors without."""


def paired_tensors(maps: Maps, masks: Maps) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of scores and bool masks of equal shape, as plain tensors; a batch stays in one piece.

    Raises:
        ValueError: the numbers of maps and masks, or their shapes, differ.
    """
    if isinstance(maps, Tensor) and isinstance(masks, Tensor):
        maps, masks = [maps], [masks]
    if len(maps) != len(masks):
        raise ValueError(f"found {len(maps)} anomaly maps and {len(masks)} masks, expected one mask per map")
    for i, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        if scores.shape != mask.shape:
            raise ValueError(
                f"anomaly map {i} of the batch has shape {tuple(scores.shape)} and its mask {tuple(mask.shape)}, "
                "expected equal shapes: invert the preprocessing of the map, or resize it to the label"
            )
        # A MetaTensor would carry its affine through every operation. Masks may be stored as 0/1 or 0/255.
        plain = mask.detach().as_subclass(torch.Tensor)
        yield scores.detach().as_subclass(torch.Tensor), plain if plain.dtype == torch.bool else plain > 0.5


def paired_images(maps: Maps, masks: Maps) -> Iterator[tuple[Tensor, Tensor]]:
    """Like :func:`paired_tensors`, one image ``[1,H,W]`` at a time."""
    for scores, mask in paired_tensors(maps, masks):
        if isinstance(maps, Tensor):
            yield from zip(scores, mask, strict=True)
        else:
            yield scores, mask


def volumes_of(maps: Maps, masks: Maps, scans: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores and bool masks ``[D,H,W]``, on the CPU, of each scan of a batch that holds whole scans.

    Args:
        maps: of each image.
        masks: of each image.
        scans: number of the scan that each is a slice of, in order; a picture has one of its own.
    """
    volumes: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for pair, scan in zip(paired_images(maps, masks), scans, strict=True):
        volumes.setdefault(scan, []).append(pair)
    for slices in volumes.values():
        scores, mask = (joined([part.cpu() for part in parts]) for parts in zip(*slices, strict=True))
        yield scores, mask


def joined(planes: Sequence[Tensor]) -> Tensor:
    """Planes ``[1,H,W]`` as one ``[D,H,W]``: a view where they lie one behind the other in memory, else a copy."""
    first = planes[0]
    start, size, storage = first.storage_offset(), first.numel(), first.untyped_storage().data_ptr()
    one_block = all(
        plane.is_contiguous()
        and (plane.shape, plane.dtype, plane.device) == (first.shape, first.dtype, first.device)
        and plane.untyped_storage().data_ptr() == storage
        and plane.storage_offset() == start + k * size
        for k, plane in enumerate(planes)
    )
    if not one_block:
        return torch.cat(list(planes))
    height, width = first.shape[1:]
    return first.as_strided((len(planes), height, width), (size, width, 1), start)


def warn_undefined(values: Mapping[str, float], reason: str) -> None:
    """Warn once about all values that are NaN."""
    undefined = [name for name, value in values.items() if value != value]
    if undefined:
        warnings.warn(f"{', '.join(undefined)} undefined (NaN): {reason}", stacklevel=3)
