"""Bring pictures and volumes upright with one transform."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping

from monai.config import KeysCollection
from monai.transforms import Orientation, Orientationd
from torch import Tensor


class OrientScand(Orientationd):
    """Orients volumes ``[C,X,Y,Z]`` to ``axcodes``, and turns pictures ``[C,W,H]`` upright to ``[C,H,W]``.

    ``"PLS"`` gives ``[C,H,W,D]`` of axial slices, ``"IPL"`` sagittal and ``"ILP"`` coronal ones, all as a radiologist
    views them. Unlike ``Orientationd`` a picture needs no other axis codes and raises no warning. Inverted by
    ``Invertd``.

    Args:
        keys: images and labels from ``LoadScand``.
        axcodes: the direction in which rows, columns and slices of a volume count up.
    """

    def __init__(self, keys: KeysCollection, axcodes: str = "PLS", allow_missing_keys: bool = False) -> None:
        if [sum(letter in pair for letter in str(axcodes)) for pair in ("LR", "AP", "IS")] != [1, 1, 1]:
            raise ValueError(
                f"axcodes is {axcodes!r}; expected one letter each of LR, AP and IS, such as 'PLS' (axial)"
            )
        super().__init__(keys, axcodes=axcodes, labels=None, allow_missing_keys=allow_missing_keys)
        self.picture_transform = Orientation(axcodes="PL", labels=None)

    def _transform(self, image: Tensor) -> Orientation:
        return self.picture_transform if image.ndim == 3 else self.ornt_transform

    def __call__(self, data: Mapping[Hashable, Tensor], lazy: bool | None = None) -> dict[Hashable, Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self._transform(result[key])(result[key], lazy=self.lazy if lazy is None else lazy)
        return result

    def inverse(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            with warnings.catch_warnings():
                # Orientation's inverse takes three axis codes from a picture's affine and then warns about the third.
                warnings.filterwarnings("ignore", message="axcodes .* length is smaller")
                result[key] = self._transform(result[key]).inverse(result[key])
        return result
