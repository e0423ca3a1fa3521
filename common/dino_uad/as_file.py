"""Images in memory as files, so that they walk the same road as those that were found there."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from PIL import Image

InMemory = np.ndarray | torch.Tensor | Image.Image | SpatialImage

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16L", "I;16B")
"""Pillow's modes that a PNG holds."""
WITHOUT_PNG = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
"""What others become, if not RGB."""
DEEPEST = 65535
"""Largest value of 16 bits."""


def as_file(image: InMemory, affine: np.ndarray | None, folder: Path) -> Path:
    """Write an image into an empty folder, without loss but for colours in floats, which are kept to 16 bits.

    Args:
        image: a picture ``[H,W]`` or ``[H,W,3]`` (uint8, uint16, floats in [0, 1]) or a volume ``[X,Y,Z]``, as array or
            tensor; a picture of Pillow's; a volume of nibabel's.
        affine: of an array that is a volume, ``[4,4]``.
        folder: where to.

    Raises:
        ValueError: it is neither a picture nor a volume, has values of a kind that neither has, or lacks its affine.
    """
    if isinstance(image, Image.Image | SpatialImage):
        if affine is not None:
            raise ValueError(f"an affine given for a {type(image).__name__}; expected None: it has its own, or none")
        return _pillow(image, folder) if isinstance(image, Image.Image) else _nibabel(image, folder)
    array = _numbers(image)
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 3 and affine is None):
        if affine is not None:
            raise ValueError(
                f"picture of shape {list(array.shape)} with an affine found; expected one of a volume [X,Y,Z] only "
                "(of a single slice: [X,Y,1])"
            )
        return _picture(array, folder)
    if array.ndim != 3 or affine is None or np.shape(affine) != (4, 4):
        raise ValueError(
            f"array of shape {list(array.shape)} with affine of shape {np.shape(affine)} found; expected a volume "
            "[X,Y,Z] with a [4,4] affine (nibabel's: image.get_fdata(), image.affine), or a picture [H,W] or [H,W,3] "
            "without one"
        )
    nib.save(nib.Nifti1Image(np.asarray(array, np.float32), np.asarray(affine, float)), folder / "array.nii")
    return folder / "array.nii"


def _numbers(image: np.ndarray | torch.Tensor) -> np.ndarray:
    """A plain array of real numbers in this machine's byte order."""
    if isinstance(image, torch.Tensor):
        plain = image.detach().as_subclass(torch.Tensor).cpu()
        image = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    if image.size == 0 or image.dtype.kind not in "biuf":
        raise ValueError(
            f"array of shape {list(image.shape)} and dtype {image.dtype} found; expected real numbers, at least one"
        )
    return np.asarray(image, image.dtype.newbyteorder("="))


def _picture(array: np.ndarray, folder: Path) -> Path:
    """PNG, but for grey floats, which Pillow has as TIFF."""
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
            raise ValueError(
                f"picture of floats from {array.min():g} to {array.max():g} found; expected them in [0, 1]: scale "
                "them, or give uint8"
            )
        if array.ndim == 2:
            Image.fromarray(array.astype(np.float32)).save(folder / "array.tif")
            return folder / "array.tif"
        array = np.rint(array.astype(np.float64) * DEEPEST).astype(np.uint16)
    if array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"picture of {array.dtype} found; expected uint8, uint16, or floats in [0, 1]")
    path = folder / "array.png"
    if array.dtype == np.uint16 and array.ndim == 3:
        import itk

        itk.imwrite(itk.image_from_array(np.ascontiguousarray(array), is_vector=True), str(path))
    else:
        Image.fromarray(np.ascontiguousarray(array)).save(path)
    return path


def _pillow(picture: Image.Image, folder: Path) -> Path:
    if picture.mode == "I" and picture.format == "PNG":  # what older versions make of 16 bits
        return _picture(np.asarray(picture).astype(np.uint16), folder)
    path = folder / ("array.tif" if picture.mode in ("I", "F") else "array.png")
    if path.suffix == ".png" and picture.mode not in PNG_MODES:
        picture = picture.convert(WITHOUT_PNG.get(picture.mode, "RGB"))
    picture.save(path)
    return path


def _nibabel(image: SpatialImage, folder: Path) -> Path:
    """Its values in float32, with the affine and unit that its header tells."""
    header = image.header.copy() if isinstance(image.header, nib.Nifti1Header) else None
    if header is not None:
        header.set_data_dtype(np.float32)
        header.set_slope_inter(1, 0)
    try:
        values = image.get_fdata(dtype=np.float32, caching="unchanged")
    except TypeError as error:
        raise ValueError(
            f"{type(image).__name__} of {image.get_data_dtype()} found; expected one real number a voxel"
        ) from error
    nib.save(nib.Nifti1Image(values, image.affine, header), folder / "array.nii")
    return folder / "array.nii"
