"""The smallest PNG, TIFF and BMP files, byte by byte: with samples that Pillow does not write."""

import struct
import zlib
from pathlib import Path

import numpy as np

GREY_ALPHA, RGB, RGBA = 4, 2, 6  # colour types of PNG


def png(path: Path, array: np.ndarray) -> Path:
    """8 or 16 bits: ``[H,W]``, or with 2 (grey and transparency), 3 or 4 channels."""
    (rows, columns), channels = array.shape[:2], 1 if array.ndim == 2 else array.shape[2]
    colour = {1: 0, 2: GREY_ALPHA, 3: RGB, 4: RGBA}[channels]
    lines = b"".join(b"\0" + row.astype(array.dtype.newbyteorder(">")).tobytes() for row in array)
    header = struct.pack(">IIBBBBB", columns, rows, 8 * array.itemsize, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def tiff(
    path: Path, array: np.ndarray, photometric: int = 1, raw: bytes | None = None, more: dict | None = None
) -> Path:
    """A little-endian TIFF of one strip, ``[H,W]`` or ``[H,W,C]``.

    Args:
        path: where to.
        array: the samples.
        photometric: 0 counts from white down, 1 from black up, 2 is RGB.
        raw: bytes instead of the array's.
        more: tag to value, over those of the array.
    """
    rows, columns, channels = (*array.shape, 1)[:3]
    raw = array.tobytes() if raw is None else raw
    kind = {"u": 1, "b": 1, "i": 2, "f": 3}[array.dtype.kind]
    tags = {256: columns, 257: rows, 258: (8 * array.itemsize,) * channels, 259: 1, 262: photometric, 273: 0}
    tags |= {277: channels, 278: rows, 279: len(raw), 339: (kind,) * channels} | (more or {})
    start = 8 + 2 + 12 * len(tags) + 4
    long = b""
    entries = []
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"<{len(values)}H", *values) if isinstance(value, tuple) else struct.pack("<I", value)
        if len(packed) > 4:
            packed, long = struct.pack("<I", start + len(long)), long + packed
        entries.append(
            struct.pack("<HHI", tag, 3 if isinstance(value, tuple) else 4, len(values)) + packed.ljust(4, b"\0")
        )
    body = b"".join(entries).replace(
        struct.pack("<HHII", 273, 4, 1, 0), struct.pack("<HHII", 273, 4, 1, start + len(long))
    )
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", 0) + long + raw)
    return path


def bmp32(path: Path, rgba: np.ndarray) -> Path:
    """A BMP (version 4) whose fourth byte is declared to be transparency."""
    rows, columns = rgba.shape[:2]
    pixels = np.ascontiguousarray(rgba[::-1, :, [2, 1, 0, 3]]).tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, columns, rows, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(108 - 40 - 16)
    start = 14 + len(header)
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + pixels)
    return path
