"""NIfTI through MONAI's reader, in millimetres, without a double-precision copy, and refusing what has no one value."""

from __future__ import annotations

import logging

import nibabel as nib
import numpy as np
from monai.data import NibabelReader
from nibabel.affines import apply_affine

from dino_uad.transforms.label_grid import box_corners
from dino_uad.transforms.units import MM_PER_UNIT, in_millimetres, nifti_unit

logger = logging.getLogger(__name__)


def geometry_doubts(image: nib.Nifti1Image) -> list[str]:
    """What is odd in a NIfTI header's geometry, and what is made of it."""
    if not isinstance(image.header, nib.Nifti1Header):
        return []
    doubts, header = [], image.header
    if nifti_unit(image) != 1:
        sizes = " x ".join(f"{size * nifti_unit(image):.4g}" for size in header.get_zooms()[:3])
        doubts.append(f"its header counts in {header.get_xyzt_units()[0]}s: voxels of {sizes} mm")
    if header["qform_code"] > 0 and header["sform_code"] > 0:
        ends = box_corners((0, side - 1) for side in image.shape[:3])
        apart = 0.0
        if ends.shape[1] == 3:
            apart = float(np.abs(apply_affine(image.get_qform(), ends) - apply_affine(image.get_sform(), ends)).max())
        if apart > min(header.get_zooms()[:3]):
            millimetres = apart * nifti_unit(image)
            doubts.append(f"qform and sform put its voxels up to {millimetres:.1f} mm apart; the sform is used")
    with nib.openers.ImageOpener(image.get_filename()) as file:  # what nibabel and MONAI have mended in `header`
        written = type(header).from_fileobj(file, check=False)
    if written["sform_code"] > 0 and not np.isfinite(written.get_sform()).all():
        doubts.append("its sform has values that are no numbers; the qform, or the voxel sizes alone, are used")
    if header["sform_code"] == 0:
        sizes = written["pixdim"][1:4]
        if (sizes <= 0).any():
            said, taken = (" x ".join(f"{size:g}" for size in three) for three in (sizes, header.get_zooms()[:3]))
            doubts.append(
                f"voxel sizes of {said} mm in its header, taken for {taken}; millimetres and millilitres may be wrong"
            )
    return doubts


class FloatNibabelReader(NibabelReader):
    """MONAI's ``NibabelReader``, whose scaled values are float32 from the start: half of its memory."""

    def __init__(self) -> None:
        super().__init__(squeeze_non_spatial_dims=True)

    def get_data(self, img):
        """Return the values and meta data; warn where the header contradicts itself."""
        for image in img if isinstance(img, list | tuple) else [img]:
            for doubt in geometry_doubts(image):
                logger.warning("%s: %s", image.get_filename(), doubt)
        return super().get_data(img)

    def _get_meta_dict(self, img) -> dict:
        return super()._get_meta_dict(img) | {MM_PER_UNIT: nifti_unit(img)}

    def _get_affine(self, img) -> np.ndarray:
        return in_millimetres(super()._get_affine(img), nifti_unit(img))

    def _get_array_data(self, img, filename):
        kind = img.get_data_dtype()
        if kind.kind == "c":
            raise ValueError(
                f"its voxels are complex numbers ({kind}), of which an image shows the magnitude or the phase; "
                "save the one that you mean as a volume of its own"
            )
        if kind.fields:
            raise ValueError(
                f"its voxels are colours ({', '.join(kind.names)}); expected one value per voxel: save a grey volume"
            )
        proxy = img.dataobj
        if not hasattr(proxy, "get_scaled") or not hasattr(proxy, "_dtype"):
            return super()._get_array_data(img, filename)
        return np.asarray(proxy.get_scaled(dtype=np.float32), np.float32)
