"""The reader of pictures for MONAI's ``LoadImage``: in [0, 1], whatever their mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.data import PILReader
from monai.data.utils import is_supported_format

from dino_uad.transforms.open_picture import opened
from dino_uad.transforms.picture_values import Picture, values_of
from dino_uad.transforms.suffixes import PICTURE_SUFFIXES

# Columns run to the patient's left and rows to posterior, so that Orientationd(axcodes="PLS") only transposes
# MONAI's [W, H] to [H, W]: pictures and axial slices come out the same way up.
PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


class UnitPILReader(PILReader):
    """Reader of PNG, JPEG, BMP and TIFF pictures as float32 in [0, 1], in MONAI's axis order ``[W,H]`` or ``[W,H,3]``.

    1-bit, 8-bit and 16-bit pictures, grey or colour, are divided by their type's largest value (packed 12 bits by
    4095); palettes, CMYK and other colour spaces become RGB; transparency is composited on black. Float TIFFs within
    [0, 1] are taken as they are. Other float, signed and 32-bit integer pictures have no natural range: they keep their
    values and get ``meta["unit_range"] = False``, which asks ``ScaleToUnitd`` to scale them. Of a pyramid of
    resolutions the first, full page is read. How a file says it should be turned for display (EXIF, the TIFF tag
    Orientation) is ignored in every format, so that masks and maps lie on the stored pixels.

    The meta data holds ``affine`` (:data:`PICTURE_AFFINE`), ``spatial_shape`` ``(W, H)``, ``picture`` (True),
    ``unit_range``, and in ``type_range`` by what stored values were divided.
    """

    def verify_suffix(self, filename: Sequence[str] | str) -> bool:
        """Whether the name ends like a picture's."""
        return is_supported_format(filename, PICTURE_SUFFIXES)

    def read(self, data: Sequence[str] | str, **kwargs) -> Picture:
        """Decode one picture completely, so that a truncated file fails here.

        Raises:
            ValueError: it is no picture, or has several pages or frames, too many pixels, or samples that are not read.
            OSError: it is truncated.
        """
        (name,) = (data,) if isinstance(data, str | Path) else data
        with opened(name, **{**self.kwargs, **kwargs}) as picture:
            return values_of(picture, name)

    def get_data(self, img: Picture) -> tuple[np.ndarray, dict]:
        """Return the array ``[W,H]`` or ``[W,H,3]`` and its meta data."""
        rows, columns = img.values.shape[:2]
        meta = {
            "spatial_shape": np.asarray([columns, rows]),
            "original_channel_dim": float("nan") if img.values.ndim == 2 else -1,
            "affine": PICTURE_AFFINE.copy(),
            "original_affine": PICTURE_AFFINE.copy(),
            "space": "RAS",
            "picture": True,
            "unit_range": img.unit_range,
            "type_range": img.type_range,
        }
        return np.moveaxis(img.values, 0, 1), meta
