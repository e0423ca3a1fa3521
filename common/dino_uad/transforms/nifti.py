"""NIfTI through MONAI's reader, without a double-precision copy of the volume, and refusing what has no one value."""

from __future__ import annotations

import numpy as np
from monai.data import NibabelReader


class FloatNibabelReader(NibabelReader):
    """MONAI's ``NibabelReader``, whose scaled values are float32 from the start: half of its memory."""

    def __init__(self) -> None:
        super().__init__(squeeze_non_spatial_dims=True)

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
