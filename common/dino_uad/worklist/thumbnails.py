"""One slice of a scan, small: the image, and beside it the map with the outline of what the label map marks there."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from dino_uad.findings import ScanGrid
from dino_uad.report import panels
from dino_uad.transforms import OrientScand

SIDE = 144
QUALITY = 78


@dataclass(frozen=True)
class Glance:
    """What a thumbnail needs of a map whose volume is gone once its findings are known.

    Attributes:
        maps: the upright map's slices ``[D,h,w]``, no side longer than :data:`SIDE`.
        highest: slice with the highest score.
        white: value of the scan that is shown as white.
    """

    maps: Tensor
    highest: int
    white: float

    @classmethod
    def of(cls, image: Tensor, anomaly_map: Tensor) -> Glance:
        """From an upright image ``[C,H,W]`` or ``[1,H,W,D]`` in [0, 1] and its map ``[1,H,W]`` or ``[1,H,W,D]``."""
        scores = anomaly_map.as_subclass(Tensor)[0].detach()
        planes = scores[None] if scores.ndim == 2 else scores.movedim(-1, 0)
        size = [min(side, SIDE) for side in planes.shape[1:]]
        maps = torch.stack([adaptive_avg_pool2d(plane[None].float(), size)[0] for plane in planes])
        highest = int(torch.stack([plane.max() for plane in planes]).argmax())
        white = panels.white_level(image.as_subclass(Tensor).detach().float().cpu().numpy())
        return cls(maps.cpu(), highest, white)


def colours(low: float, thresholds: tuple[float, float] | None) -> tuple[float, float]:
    """The score up to which the map is transparent, and the one from which it is brightest.

    Args:
        low: such as the threshold at 5 %.
        thresholds: what a finding reaches, and how far down it extends; None where nobody asked for findings.
    """
    high = max(thresholds[0], low) if thresholds else low
    return low, max(2 * high - low, low + 1e-6)


def thumbnail(
    image: Tensor, glance: Glance, scale: tuple[float, float], slice_index: int, marked: NDArray[np.bool_] | None = None
) -> bytes:
    """A JPEG of two pictures side by side, the longer side of each :data:`SIDE` pixels.

    Args:
        image: upright ``[C,H,W]`` or ``[1,H,W,D]`` in [0, 1].
        glance: of its map.
        scale: :func:`colours`.
        slice_index: which slice; 0 of a picture.
        marked: what is outlined in it, upright ``[h,w]`` of any size, such as :func:`marked_plane`.
    """
    plain = image.as_subclass(Tensor).detach()
    picture = (plain[..., slice_index] if plain.ndim == 4 else plain).float().cpu().numpy()
    grey = panels.grey_rgb(picture, SIDE, _aspect(image), glance.white)
    shown = panels.overlay_rgb(grey, glance.maps[slice_index].numpy(), *scale)
    if marked is not None:
        # By the maximum: a finding of one pixel is outlined, too.
        small = adaptive_max_pool2d(torch.from_numpy(marked)[None].float(), grey.shape[:2])[0]
        shown = panels.contours_rgb(shown, None, small.numpy() > 0)
    return _jpeg(panels.side_by_side(grey, shown, gap=4))


def marked_plane(
    numbers: NDArray[np.integer], image: Tensor, grid: ScanGrid, axcodes: str, number: int | None
) -> NDArray[np.bool_]:
    """One slice ``[H,W]`` of a label map, upright as the network's image is, at the resolution of the file.

    Args:
        numbers: labels in the shape of the file.
        image: from ``LoadScand`` and ``OrientScand``; its meta data tell how the file was laid out.
        grid: of the file.
        axcodes: orientation of the network's volumes.
        number: the file's slice, from 1; not needed where there is only one.
    """
    if grid.affine is not None:
        axis = grid.slice_axis
        if axis is not None and grid.slices > 1:
            place = [slice(None)] * numbers.ndim
            place[axis] = slice(number - 1, number)
            numbers = numbers[tuple(place)]
        else:  # one slice is laid out with its axis last
            numbers = numbers[..., None] if axis is None else np.moveaxis(numbers, axis, -1)
    marked = torch.from_numpy(np.ascontiguousarray(numbers > 0))[None].to(torch.uint8)
    upright = OrientScand("label", axcodes)({"label": MetaTensor(marked, affine=image.meta["original_affine"])})
    plane = upright["label"].as_subclass(Tensor)[0]
    return (plane if grid.affine is None else plane[..., 0]).bool().numpy()


def colour_bar(scale: tuple[float, float]) -> bytes:
    """A PNG of the colours of a map over grey tissue, from the lower to the upper end of ``scale``."""
    grey = np.full((14, 180, 3), 110, dtype=np.uint8)
    return panels.png(panels.overlay_rgb(grey, np.linspace(*scale, 180)[None].repeat(14, axis=0), *scale))


def _aspect(image: Tensor) -> float:
    """Height of a pixel divided by its width, from the geometry that resizing has left."""
    affine = getattr(image, "affine", None)
    if affine is None:
        return 1.0
    rows, columns = torch.as_tensor(affine)[:3, :2].double().norm(dim=0).tolist()
    return rows / columns if rows > 0 and columns > 0 else 1.0


def _jpeg(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()
