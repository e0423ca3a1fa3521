"""The values of a picture in [0, 1], whatever its mode and depth; colours of 16 bits are read by ITK."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dino_uad.transforms.itk_reader import utf8_name
from dino_uad.transforms.open_picture import bits, is_signed, loaded

PHOTOMETRIC = 262  # a TIFF tag, 0 where white is
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes of more than 8 bits; all are grey."""
SEE_THROUGH = ("LA", "La", "RGBA", "RGBa", "PA")
COLOURS = ("RGB", "RGBX", "RGBA", "RGBa", "LA")
"""Modes in which Pillow would give the upper 8 bits of 16."""


@dataclass(frozen=True)
class Picture:
    """What a picture's file holds."""

    values: np.ndarray
    """float32 ``[H,W]`` or ``[H,W,3]``."""
    unit_range: bool = True
    """Whether the values are in [0, 1]."""
    type_range: float = 255.0
    """Number by which stored values were divided."""


def values_of(picture: Image.Image, path: str | os.PathLike[str]) -> Picture:
    """Decode an opened picture completely.

    Raises:
        ValueError: 16 bits a colour, in a layout that is not read.
        OSError: it is truncated.
    """
    depth = bits(picture)
    if depth > 8 and picture.mode not in DEEP:
        return Picture(_deep_colour(picture, path), True, 65535.0)
    signed, white = is_signed(picture), getattr(picture, "tag_v2", {}).get(PHOTOMETRIC) == 0
    image = loaded(picture)
    if image.mode in ("F", "I") or signed:
        return _measured(image, signed, depth, white)
    if image.mode in DEEP:
        largest = 4095.0 if depth == 12 else 65535.0
        array = np.asarray(image).astype(np.float32) / np.float32(largest)
        # Pillow inverts TIFFs that count from white down if they have at most 8 bits, and leaves deeper ones.
        return Picture(1 - array if white else array, True, largest)
    if image.mode == "1":
        return Picture(np.asarray(image, np.float32), True, 1.0)
    return Picture(_composited(image, picture.format == "BMP"))


def _measured(image: Image.Image, signed: bool, depth: int, white: bool) -> Picture:
    """Floating point, or integers without a natural range: their values as they are."""
    array = np.asarray(image)
    if signed and array.dtype == np.uint8:
        array = array.view(np.int8)  # Pillow has no such mode, and gives the bytes
    elif image.mode == "I" and depth == 32 and not signed:
        array = array.view(np.uint32)
    array = array.astype(np.float32)
    if white and array.size:
        array = array.max() + array.min() - array
    unit = image.mode == "F" and bool(array.size and array.min() >= 0 and array.max() <= 1)
    return Picture(array, unit, 1.0)


def _composited(image: Image.Image, bitmap: bool) -> np.ndarray:
    """8-bit grey or colour in [0, 1], transparency on black."""
    mode = image.mode
    if mode in SEE_THROUGH or "transparency" in image.info:
        rgba = np.asarray(image.convert("LA" if mode == "L" else mode).convert("RGBA"), np.float32) / 255
        # Programs that know no transparency leave the fourth byte of a BMP's pixels at 0.
        unused = bitmap and not rgba[..., 3].any()
        array = rgba[..., :3] if unused else rgba[..., :3] * rgba[..., 3:]
        return array[..., 0] if mode in ("L", "LA", "La") else array
    return np.asarray(image if mode == "L" else image.convert("RGB"), np.float32) / 255


def _deep_colour(picture: Image.Image, path: str | os.PathLike[str]) -> np.ndarray:
    """Colour, or grey with transparency, of 16 bits: Pillow has no mode for it, ITK does."""
    array = _itk_samples(picture, path) if picture.mode in COLOURS else None
    if array is None:
        raise ValueError(
            f"it has {bits(picture)} bits a colour in a layout that is not read without loss ({picture.mode} "
            f"{picture.format}: other colours than RGB, tiles, planes, a rotation or a compression that ITK does not "
            "know); save it as a 16-bit RGB or grey PNG"
        )
    array = array.astype(np.float32) / np.float32(65535)
    colours = array[..., 0] if array.shape[-1] < 3 else array[..., :3]
    alpha = array[..., -1] if array.shape[-1] in (2, 4) else None
    if alpha is None or not (picture.mode in ("RGBA", "LA") or "transparency" in picture.info):
        return colours
    return colours * (alpha if colours.ndim == 2 else alpha[..., None])


def _itk_samples(picture: Image.Image, path: str | os.PathLike[str]) -> np.ndarray | None:
    """``[H,W,C]`` samples of 16 bits; None where ITK would read others, as it does with 8 bits what it finds odd."""
    import itk

    loud = itk.Object.GetGlobalWarningDisplay()
    itk.Object.SetGlobalWarningDisplay(False)  # it tells of the 8 bits on standard error
    try:
        with utf8_name(path) as name:
            reader = (itk.PNGImageIO if picture.format == "PNG" else itk.TIFFImageIO).New()
            reader.SetFileName(name)
            reader.ReadImageInformation()
            channels = reader.GetNumberOfComponents()
            if reader.GetComponentType() != itk.CommonEnums.IOComponent_USHORT or channels not in (2, 3, 4):
                return None
            return itk.array_from_image(itk.imread(name, pixel_type=itk.Vector[itk.F, channels], imageio=reader))
    except RuntimeError:
        return None
    finally:
        itk.Object.SetGlobalWarningDisplay(loud)
