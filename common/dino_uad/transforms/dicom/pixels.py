"""The values of a DICOM frame: decoded by pydicom (with GDCM for compressed ones), rescaled frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from dino_uad.transforms.dicom.frames import Frame, functional, is_dicom

try:
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    CONVERTS_COLOURS = True
except ImportError:  # pydicom 2, which MONAI Label needs
    from pydicom.pixel_data_handlers.util import apply_color_lut, apply_modality_lut, convert_color_space

    CONVERTS_COLOURS = False

OVERLAY_BIT = 0x0102  # the element of OverlayBitPosition


def frame_values(data: Dataset, frame: Frame) -> np.ndarray:
    """Values in the image's units (Hounsfield for CT) as float32 ``[rows,columns]``.

    ``MONOCHROME1`` (white is low) is inverted within the range of the bits stored, so that bright means the same
    everywhere. Slope and intercept are the frame's own; products are taken in double precision. Padding gets the
    smallest of the other values: 63536 around a CT would be its brightest.

    Args:
        data: the frame's file with its pixels.
        frame: which frame of it.

    Raises:
        ValueError: the pixels are damaged, or packed in a way that cannot be decoded.
    """
    stored = _decoded(data, frame)
    padded = _padded(data, stored)
    if data.PhotometricInterpretation == "MONOCHROME1":
        stored = sum(_stored_range(data)) - stored.astype(np.float64)
    slope = functional(data, frame.index, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = functional(data, frame.index, "PixelValueTransformationSequence", "RescaleIntercept")
    if "ModalityLUTSequence" in data:
        return np.asarray(apply_modality_lut(stored.astype(np.int64), data), np.float32)
    scaled = stored.astype(np.float64) * float(slope or 1) + float(intercept or 0)
    if padded.any() and not padded.all():
        scaled[padded] = scaled[~padded].min()
    return scaled.astype(np.float32)


def _padded(data: Dataset, stored: np.ndarray) -> np.ndarray:
    """Mask of padding pixels, where nothing was imaged; none where they are 0 and 0 is black."""
    value = data.get("PixelPaddingValue")
    if value in (None, "") or (value == 0 and data.PhotometricInterpretation != "MONOCHROME1"):
        return np.zeros(stored.shape, bool)
    low, high = sorted((int(value), int(data.get("PixelPaddingRangeLimit", value))))
    return (stored >= low) & (stored <= high)


def colour_values(data: Dataset, frame: Frame) -> np.ndarray:
    """A colour frame as float32 ``[rows,columns,3]`` in [0, 1]; palettes and YBR become RGB."""
    stored = _decoded(data, frame)
    if data.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, data)[..., :3]
        largest = float(np.iinfo(stored.dtype).max)
    else:
        largest = float(2 ** int(data.BitsStored) - 1)
    return (stored / largest).astype(np.float32)


def stored_values(path: Path) -> np.ndarray:
    """The stored values of a DICOM file's middle frame, or of the middle one of the DICOM files in a folder."""
    files = [path] if path.is_file() else [file for file in sorted(path.iterdir()) if is_dicom(file)]
    data = pydicom.dcmread(files[len(files) // 2], force=True)
    _state_syntax(data)
    return _pixels(data, int(data.get("NumberOfFrames") or 1) // 2)


def same_pixels(one: Path, other: Path) -> bool:
    """Whether two DICOM files hold the same values, however they are packed; True where that cannot be told."""
    first, second = (pydicom.dcmread(path, force=True) for path in (one, other))
    for data in (first, second):
        _state_syntax(data)
    if first.file_meta.TransferSyntaxUID == second.file_meta.TransferSyntaxUID:
        return first.get("PixelData") == second.get("PixelData")
    try:
        return np.array_equal(first.pixel_array, second.pixel_array)
    except Exception:  # as in ``_decoded``: reading says what is wrong
        return True


def _state_syntax(data: Dataset) -> None:
    """Files without the header that names the transfer syntax are, as the standard asks, little-endian."""
    if "TransferSyntaxUID" not in data.file_meta:
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if data.is_implicit_VR else ExplicitVRLittleEndian


def _decoded(data: Dataset, frame: Frame) -> np.ndarray:
    try:
        _state_syntax(data)
        array = _pixels(data, frame.index)
        if not CONVERTS_COLOURS and data.PhotometricInterpretation.startswith("YBR_FULL"):
            array = convert_color_space(array, "YBR_FULL", "RGB")
        return array
    except Exception as error:  # decoders raise what they like
        raise ValueError(f"{frame.file.name}: its pixels cannot be decoded: {error}") from error


def _pixels(data: Dataset, index: int) -> np.ndarray:
    """One frame, in the bits that the header names: up to HighBit, with the sign of the highest.

    pydicom takes the lowest bits whatever HighBit says, and before version 3 all, without a sign.

    Raises:
        ValueError: the bits below or above are in use, so that the header contradicts the pixels, or the values are
            compressed.
    """
    stored, high = int(data.get("BitsStored") or 0), data.get("HighBit")
    below = 0 if high is None or not stored else int(high) + 1 - stored
    said = f"its header says that values of {stored} bits end at bit {high}"
    syntax = data.file_meta.TransferSyntaxUID
    packed = syntax.is_compressed and syntax != RLELossless  # which keeps the stored bytes as they are
    if below < 0 or (below and packed) or stored + below > int(data.BitsAllocated):
        raise ValueError(f"{said} of {data.BitsAllocated}; expected bit {stored - 1}. Export it again")
    if packed or stored in (0, int(data.BitsAllocated)):
        return _frame(data, stored, index)
    frame = _frame(data, int(data.BitsAllocated), index)
    if below and (frame & ((1 << below) - 1)).any():
        raise ValueError(f"{said}, but lower bits are in use; expected them to be 0. Export it again")
    above = 8 * frame.itemsize - stored - below
    values = (frame << above) >> (above + below)
    if not _has_embedded_overlay(data) and not _agrees(frame >> (stored + below), values):
        raise ValueError(
            f"{said}, but higher bits are in use, and no overlay is declared in them; expected values that fit. Export "
            "it again"
        )
    return values


def _agrees(above: np.ndarray, values: np.ndarray) -> bool:
    """Whether the bits above all values are 0, or all repeat the sign, as writers have it either way."""
    return not above.any() or np.array_equal(above, np.where(values < 0, -1, 0))


def _has_embedded_overlay(data: Dataset) -> bool:
    """Whether a header says that drawings lie in bits of the pixels (OverlayBitPosition of a group 60xx)."""
    return any(
        tag.element == OVERLAY_BIT and 0x6000 <= tag.group <= 0x60FF and data[tag].value for tag in list(data.keys())
    )


def _frame(data: Dataset, stored: int, index: int) -> np.ndarray:
    """Decode a frame with ``BitsStored`` set to ``stored``, and the header put back."""
    told = data.get("BitsStored")
    if stored and stored != told:
        data.BitsStored = stored
    try:
        array = data.pixel_array
    finally:
        if told is not None:
            data.BitsStored = told
    return array[index] if int(data.get("NumberOfFrames") or 1) > 1 else array


def _stored_range(data: Dataset) -> tuple[int, int]:
    """The smallest and largest number that the stored bits hold."""
    bits, signed = int(data.BitsStored), bool(data.get("PixelRepresentation", 0))
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
