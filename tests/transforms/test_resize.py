"""Volumes are resized slice by slice, with the result and the way back of MONAI's whole-volume resizing."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Resize

from dino_uad.transforms import InPlaneResized

AFFINE = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(1, 40, 50, 5), (3, 17, 11, 4), (1, 33, 20)])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_equals_monai_and_comes_back(shape, mode):
    image = MetaTensor(torch.rand(shape, generator=torch.Generator().manual_seed(0)), affine=AFFINE)
    whole = Resize((24, 28, *shape[3:]), mode=mode.replace("bi", "tri") if len(shape) == 4 else mode)
    whole.anti_aliasing = mode != "nearest"
    expected = whole(image)
    step = Compose([InPlaneResized("image", (24, 28), mode)])
    found = step({"image": image})
    torch.testing.assert_close(found["image"].as_tensor(), expected.as_tensor(), atol=1e-5, rtol=0)
    torch.testing.assert_close(found["image"].affine, expected.affine)
    back = Invertd("image", step, nearest_interp=False)(found)["image"]
    assert back.shape == image.shape
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-9)
    torch.testing.assert_close(back.as_tensor(), whole.inverse(expected).as_tensor(), atol=1e-5, rtol=0)
