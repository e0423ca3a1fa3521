"""Picture files as Pillow opens them: their pixels as they are stored, and what their headers say of the samples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

BITS, COMPRESSION, SAMPLES, FORMAT = 258, 259, 277, 339  # TIFF tags
UNSIGNED, SIGNED = 1, 2  # values of the last one
NAMES = {UNSIGNED: "unsigned", SIGNED: "signed", 3: "floating point"}
SUBFILE_TYPE, REDUCED, TRANSPARENCY = 254, 1, 4  # a TIFF tag, and bits of it


@contextmanager
def opened(path: str | os.PathLike[str], **options) -> Iterator[Image.Image]:
    """Pillow's picture, nothing of its pixels read yet.

    Raises:
        ValueError: it is no picture, or has several pages, too many pixels, or samples that are not read.
    """
    with open(path, "rb") as file, _identified(file, path, options) as picture:
        # A camera's JPEG (MPO) carries its preview behind the picture.
        if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO" and not _is_pyramid(picture):
            raise ValueError(
                f"it has {picture.n_frames} pages, one was expected; save the pages as single files, "
                "or the stack as a NIfTI volume"
            )
        yield picture


def _identified(file: BinaryIO, path: str | os.PathLike[str], options: dict[str, Any]) -> Image.Image:
    # Given the file itself, Pillow does not map it: it maps a TIFF that is to be turned with rows of the wrong length.
    try:
        return Image.open(file, **options)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"it has too many pixels ({str(error).partition(',')[0]}); save it smaller, or in several files"
        ) from error
    except UnidentifiedImageError as error:
        samples = _tiff_samples(path)
        raise ValueError(
            f"it is a TIFF with {samples}, which is not read; save it without compression, with 8 or 16 unsigned "
            "bits (grey or RGB) or as grey 32-bit floating point"
            if samples
            else "cannot identify image file: its content is that of no picture"
        ) from error


def loaded(picture: Image.Image) -> Image.Image:
    """The whole picture in its stored rows and columns: Pillow turns TIFFs that say how to be shown, and those only."""
    if picture.format == "TIFF":
        picture.getexif().pop(ExifTags.Base.Orientation, None)
    picture.load()
    return picture.copy()  # its size is that of the pixels again


def stored_size(picture: Image.Image) -> tuple[int, int]:
    """Columns and rows as they are stored; Pillow's ``size`` is that of a TIFF when it is shown."""
    tags = getattr(picture, "tag_v2", {})
    return tags.get(TiffImagePlugin.IMAGEWIDTH, picture.width), tags.get(TiffImagePlugin.IMAGELENGTH, picture.height)


def turned(picture: Image.Image) -> int:
    """How the picture says that it is to be turned or mirrored when it is shown (EXIF's Orientation); 1: not at all."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # Pillow would decode it all to look behind the pixels
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1)) or 1
    except Exception:  # as in ``_tiff_samples``
        return 1


def bits(picture: Image.Image) -> int:
    """How many bits a sample has in the file, before it is loaded; Pillow's modes have 8 for all colours."""
    if hasattr(picture, "tag_v2"):
        return max(picture.tag_v2.get(BITS, (1,)), default=1)
    return 16 if picture.format == "PNG" and any(";16" in str(tile[3]) for tile in picture.tile) else 8


def is_signed(picture: Image.Image) -> bool:
    """Whether its values are integers with a sign."""
    return SIGNED in getattr(picture, "tag_v2", {}).get(FORMAT, ())


def _tiff_samples(path: str | os.PathLike[str]) -> str:
    """What the header of a TIFF says of its samples, in words; empty for another file, or a damaged header."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return ""
            head += file.read(8) if 43 in head[2:4] else b""
            tags = TiffImagePlugin.ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
            kinds = {NAMES.get(kind, "other") for kind in tags.get(FORMAT, (UNSIGNED,))}
            said = f"{tags.get(SAMPLES, 1)} x {max(tags[BITS])} bits a pixel, {' and '.join(sorted(kinds))}"
            return said + f", compression {tags.get(COMPRESSION, 1)}"
    except Exception:  # Pillow's parser raises what a damaged header makes of it
        return ""


def _is_pyramid(picture: Image.Image) -> bool:
    """Whether the pages of a TIFF behind the first are smaller copies of it, or its transparency; goes back to it."""
    kinds = []
    for page in range(1, picture.n_frames):
        picture.seek(page)
        kinds.append(getattr(picture, "tag_v2", {}).get(SUBFILE_TYPE, 0) & (REDUCED | TRANSPARENCY))
    picture.seek(0)
    return all(kinds)
