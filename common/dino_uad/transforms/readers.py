"""The reader of pictures for MONAI's ``LoadImage``: in [0, 1], whatever their mode.

Volumes need nothing of our own but for DICOM (:mod:`dino_uad.transforms.dicom`): ``monai.data.NibabelReader`` reads
NIfTI and ``monai.data.ITKReader`` NRRD and MetaImage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.data import PILReader
from monai.data.utils import is_supported_format
from PIL import Image

PICTURE_SUFFIXES = ("png", "jpg", "jpeg", "bmp", "tif", "tiff")
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")

# Columns run to the patient's left and rows to posterior, so that Orientationd(axcodes="PLS") only transposes
# MONAI's [W, H] to [H, W]: pictures and axial slices come out the same way up.
PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])

PHOTOMETRIC, WHITE_IS_ZERO = 262, "white is zero"  # a TIFF tag, and our note of its value 0
SUBFILE_TYPE, REDUCED, TRANSPARENCY = 254, 1, 4  # a TIFF tag, and bits of it
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


class UnitPILReader(PILReader):
    """Reader of PNG, JPEG, BMP and TIFF pictures as float32 in [0, 1], in MONAI's axis order ``[W,H]`` or ``[W,H,3]``.

    1-bit, 8-bit and 16-bit pictures are divided by their type's largest value; palettes, CMYK and other colour spaces
    become RGB; transparency is composited on black. Float TIFFs within [0, 1] are taken as they are. Other float and
    32-bit integer pictures have no natural range: they keep their values and get ``meta["unit_range"] = False``, which
    asks ``ScaleToUnitd`` to scale them. Of a pyramid of resolutions the first, full page is read. EXIF rotation is
    ignored, so that maps lie on the stored pixels.

    The meta data holds ``affine`` (:data:`PICTURE_AFFINE`), ``spatial_shape`` ``(W, H)``, ``unit_range``, and in
    ``type_range`` by what stored values were divided.
    """

    def verify_suffix(self, filename: Sequence[str] | str) -> bool:
        """Whether the name ends like a picture's."""
        return is_supported_format(filename, PICTURE_SUFFIXES)

    def read(self, data: Sequence[str] | str, **kwargs) -> Image.Image:
        """Decode one picture completely, so that a truncated file fails here.

        Raises:
            ValueError: the file holds several pages or frames.
            OSError: it is not a picture, or it is truncated.
        """
        (name,) = (data,) if isinstance(data, str | Path) else data
        with Image.open(name, **{**self.kwargs, **kwargs}) as picture:
            # A camera's JPEG (MPO) carries its preview behind the picture.
            if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO" and not _is_pyramid(picture):
                raise ValueError(
                    f"it has {picture.n_frames} pages, one was expected; save the pages as single files, "
                    "or the stack as a NIfTI volume"
                )
            picture.load()
            loaded = picture.copy()
            # Pillow inverts TIFFs that count from white down if they have at most 8 bits, and leaves deeper ones.
            loaded.info[WHITE_IS_ZERO] = getattr(picture, "tag_v2", {}).get(PHOTOMETRIC) == 0 and picture.mode in DEEP
            return loaded

    def get_data(self, img: Image.Image) -> tuple[np.ndarray, dict]:
        """Return the array ``[W,H]`` or ``[W,H,3]`` and its meta data."""
        array, unit_range = unit_array(img)
        meta = {
            "spatial_shape": np.asarray([img.width, img.height]),
            "original_channel_dim": float("nan") if array.ndim == 2 else -1,
            "affine": PICTURE_AFFINE.copy(),
            "original_affine": PICTURE_AFFINE.copy(),
            "space": "RAS",
            "unit_range": unit_range,
            "type_range": 65535.0 if img.mode.startswith("I;16") else 1.0 if img.mode in ("1", "F", "I") else 255.0,
        }
        return np.moveaxis(array, 0, 1), meta


def _is_pyramid(picture: Image.Image) -> bool:
    """Whether the pages of a TIFF behind the first are smaller copies of it, or its transparency; goes back to it."""
    kinds = []
    for page in range(1, picture.n_frames):
        picture.seek(page)
        kinds.append(getattr(picture, "tag_v2", {}).get(SUBFILE_TYPE, 0) & (REDUCED | TRANSPARENCY))
    picture.seek(0)
    return all(kinds)


def unit_array(picture: Image.Image) -> tuple[np.ndarray, bool]:
    """Return a picture as float32 ``[H,W]`` or ``[H,W,3]`` and whether its values are in [0, 1]."""
    mode = picture.mode
    if mode in ("F", "I"):
        array = np.asarray(picture, np.float32)
        if picture.info.get(WHITE_IS_ZERO) and array.size:
            array = array.max() + array.min() - array
        return array, mode == "F" and bool(array.size and array.min() >= 0 and array.max() <= 1)
    if mode.startswith("I;16"):
        array = np.asarray(picture).astype(np.float32) / 65535
        return 1 - array if picture.info.get(WHITE_IS_ZERO) else array, True
    if mode == "1":
        return np.asarray(picture, np.float32), True
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in picture.info:
        grey = mode in ("L", "LA", "La")
        rgba = np.asarray(picture.convert("LA" if mode == "L" else mode).convert("RGBA"), np.float32) / 255
        array = rgba[..., :3] * rgba[..., 3:]
        return array[..., 0] if grey else array, True
    return np.asarray(picture if mode == "L" else picture.convert("RGB"), np.float32) / 255, True


def image_name(path: Path) -> str:
    """The name of an image without its suffix (``.nii.gz`` is one); that of a folder (a DICOM series) is whole."""
    for suffix in VOLUME_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name if path.is_dir() else path.stem
