"""Pictures of single images as plain arrays: the image, the anomaly map over it, contours, a scale bar."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion, zoom

from dino_uad.transforms import png_mark

Rgb = NDArray[np.uint8]
"""``[H,W,3]``."""

TRUTH_COLOUR = (86, 180, 233)  # Okabe & Ito's sky blue and vermilion differ for every kind of colour blindness
PREDICTION_COLOUR = (213, 94, 0)
MAP_COLOURS = "inferno"
PANEL_SIDE = 448
WHITE_PERCENTILE = 99.8


def white_level(image: NDArray) -> float:
    """Value of an image or volume of any shape to show as white: scalp fat or vessels must not darken the rest."""
    return float(np.percentile(image, WHITE_PERCENTILE)) or 1.0


def grey_rgb(image: NDArray, side: int = PANEL_SIDE, aspect: float = 1.0, white: float | None = None) -> Rgb:
    """Show ``[C,H,W]`` or ``[H,W]``, black at 0, so that its longer side has ``side`` pixels.

    Args:
        image: grey or RGB.
        side: length of the longer side of the result.
        aspect: height of a pixel divided by its width.
        white: value shown as white, e.g. of the volume a slice is from; None for :func:`white_level` of the image.
    """
    planes = np.nan_to_num(np.asarray(image, dtype=np.float32))
    planes = planes[None] if planes.ndim == 2 else planes
    pixels = np.moveaxis(np.broadcast_to(planes, (3, *planes.shape[1:])), 0, -1)
    white = white_level(planes) if white is None else white
    pixels = (np.clip(pixels / white, 0, 1) * 255).round().astype(np.uint8)
    height, width = pixels.shape[0] * aspect, pixels.shape[1]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def overlay_rgb(background: Rgb, anomaly_map: NDArray, low: float, high: float) -> Rgb:
    """Blend ``anomaly_map [h,w]`` in colours over ``background``; opacity grows with the score.

    Scores up to ``low`` stay transparent, so the anatomy is visible where nothing was found.
    """
    from matplotlib import colormaps

    scores = _resize(np.asarray(anomaly_map, dtype=np.float32), background.shape[:2])
    strength = np.clip((scores - low) / max(high - low, 1e-12), 0, 1)
    colours = colormaps[MAP_COLOURS](0.15 + 0.85 * strength)[..., :3] * 255
    opacity = 0.85 * np.minimum(1, 2 * strength)[..., None]
    return (background * (1 - opacity) + colours * opacity).round().astype(np.uint8)


def map_rgb(values: NDArray, low: float, high: float, colours: str) -> Rgb:
    """Show ``values [h,w]`` in colours, one square each, NaN in grey."""
    from matplotlib import colormaps

    values = np.asarray(values, dtype=np.float64)
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    pixels = (colormaps[colours](np.nan_to_num(scaled))[..., :3] * 255).round().astype(np.uint8)
    pixels[np.isnan(values)] = 128
    factor = max(1, round(PANEL_SIDE / max(values.shape)))
    return np.kron(pixels, np.ones((factor, factor, 1), dtype=np.uint8))


def contours_rgb(background: Rgb, truth: NDArray | None, prediction: NDArray | None) -> Rgb:
    """Draw the outlines of bool masks ``[h,w]``: the prediction in vermilion, the annotation in blue above it.

    A mask that reaches the border of the picture is open there: a line would look like a frame.
    """
    result = background.copy()
    width = max(1, round(max(background.shape) / 150))
    for mask, colour in ((prediction, PREDICTION_COLOUR), (truth, TRUTH_COLOUR)):
        if mask is not None and np.any(mask):
            filled = _resize(np.asarray(mask, dtype=np.float32), background.shape[:2]) >= 0.5
            line = filled & ~binary_erosion(filled, iterations=width, border_value=1)
            result[binary_dilation(line)] = 0  # a dark seam, so that the line also shows on bright tissue
            result[line] = colour
    return result


def with_scale_bar(picture: Rgb, millimetres_per_pixel: float | None) -> Rgb:
    """Add a bar of a round length, at most a third of the width; without a known spacing, nothing."""
    if not millimetres_per_pixel:
        return picture
    width = picture.shape[1]
    lengths = [n * 10.0**e for e in range(-3, 4) for n in (1, 2, 5)]
    length = max((mm for mm in lengths if mm <= width * millimetres_per_pixel / 3), default=lengths[0])
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    right, bottom, thick = width - width // 25, picture.shape[0] - picture.shape[0] // 25, max(2, width // 110)
    left = right - length / millimetres_per_pixel
    draw.rectangle((left - 1, bottom - thick - 1, right + 1, bottom + 1), fill=(0, 0, 0))
    draw.rectangle((left, bottom - thick, right, bottom), fill=(255, 255, 255))
    font = ImageFont.load_default(max(10, width // 17))
    place = ((left + right) / 2, bottom - thick - 4)
    draw.text(place, f"{length:g} mm", (255, 255, 255), font, "mb", stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(image)


def with_cross(picture: Rgb, row: float, column: float) -> Rgb:
    """Mark a place, given as fractions of height and width, with a cross that is open in the middle."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    y, x, arm = row * image.height, column * image.width, max(image.size) / 18
    for start, stop in ((-2, -1), (1, 2)):
        for shape in ((x + start * arm / 2, y, x + stop * arm / 2, y), (x, y + start * arm / 2, x, y + stop * arm / 2)):
            draw.line(shape, fill=(255, 255, 255), width=max(1, image.width // 200))
    return np.asarray(image)


def side_by_side(*pictures: Rgb, gap: int = 8) -> Rgb:
    """Pictures of equal height in one, with white between them."""
    white = np.full((pictures[0].shape[0], gap, 3), 255, dtype=np.uint8)
    parts = [part for picture in pictures for part in (white, picture)]
    return np.concatenate(parts[1:], axis=1)


def png(picture: Rgb) -> bytes:
    """Encode as PNG."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", pnginfo=png_mark())
    return stream.getvalue()


def _resize(values: NDArray, shape: tuple[int, int]) -> NDArray:
    if values.shape == shape:
        return values
    factors = [new / old for new, old in zip(shape, values.shape, strict=True)]
    resized = zoom(values, factors, order=1, grid_mode=True, mode="nearest")
    return resized[: shape[0], : shape[1]]
