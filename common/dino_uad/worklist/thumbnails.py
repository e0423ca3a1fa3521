"""The slice with the highest score, small: the image, and beside it the map with the outline of what is found."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dino_uad.findings import components
from dino_uad.report import panels

SIDE = 144
QUALITY = 78


def thumbnail(
    image: Tensor, anomaly_map: Tensor, low: float, thresholds: tuple[float, float] | None = None, side: int = SIDE
) -> bytes:
    """A JPEG of two pictures side by side.

    Args:
        image: upright ``[C,H,W]`` or ``[1,H,W,D]`` in [0, 1].
        anomaly_map: ``[1,H,W]`` or ``[1,H,W,D]``.
        low: score up to which the map is transparent, such as the threshold at 5 %.
        thresholds: what a finding reaches, and how far down it extends; None draws no outline.
        side: longer side of each picture in pixels.
    """
    aspect = _aspect(image)
    scores = anomaly_map.as_subclass(Tensor)[0].detach().float().cpu().numpy()
    picture = image.as_subclass(Tensor).detach().float().cpu().numpy()
    white = panels.white_level(picture)
    if scores.ndim == 3:
        k = int(scores.reshape(-1, scores.shape[2]).max(axis=0).argmax())
        scores, picture = scores[..., k], picture[..., k]
    plain = panels.grey_rgb(picture, side, aspect, white)
    high = max(thresholds[0], low) if thresholds else low
    shown = panels.overlay_rgb(plain, scores, low, max(2 * high - low, low + 1e-6))
    if thresholds is not None:
        labels, count = components(scores, *thresholds)
        if count:
            shown = panels.contours_rgb(shown, None, labels > 0)
    return _jpeg(panels.side_by_side(plain, shown, gap=4))


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
