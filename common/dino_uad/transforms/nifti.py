"""NIfTI through MONAI's reader, in millimetres, without a double-precision copy, and refusing what has no one value."""

from __future__ import annotations

import logging
import os

import nibabel as nib
import numpy as np
from monai.data import NibabelReader

from dino_uad.findings import NO_SPACING
from dino_uad.transforms.nifti_geometry import NIFTI_FORMS, forms_of, geometry_doubts, load_nifti, states_spacing
from dino_uad.transforms.units import MM_PER_UNIT, in_millimetres, nifti_unit

logger = logging.getLogger(__name__)


class FloatNibabelReader(NibabelReader):
    """MONAI's ``NibabelReader``, whose scaled values are float32 from the start: half of its memory."""

    def __init__(self) -> None:
        super().__init__(squeeze_non_spatial_dims=True)

    def read(self, data, **kwargs):
        """Open the file with the geometry that its header declares (:func:`load_nifti`)."""
        self.filenames = (data,) if isinstance(data, str | os.PathLike) else tuple(data)
        (name,) = self.filenames
        return load_nifti(name)

    def get_data(self, img):
        """Return the values and meta data; warn where the header contradicts itself."""
        for doubt in geometry_doubts(img):
            logger.warning("%s: %s", img.get_filename(), doubt)
        return super().get_data(img)

    def _get_meta_dict(self, img) -> dict:
        geometry = {NIFTI_FORMS: forms_of(img)} if isinstance(img.header, nib.Nifti1Header) else {}
        geometry[NO_SPACING] = "" if states_spacing(img) else "its header states no voxel sizes"
        return super()._get_meta_dict(img) | {MM_PER_UNIT: nifti_unit(img)} | geometry

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
