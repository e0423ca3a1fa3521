"""What is measured is what is written: the map of the evaluation and the one that inference brings back."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from dino_uad.engines.evaluate import resize_like
from dino_uad.transforms import InPlaneResized


@pytest.mark.parametrize("size", [(40, 30), (56, 56), (150, 90)])
def test_evaluation_measures_the_map_that_inference_writes(size):
    """Smaller, equal and larger images than the network's."""
    preprocessing = Compose([InPlaneResized("image", (56, 56))])
    item = preprocessing({"image": MetaTensor(torch.rand(1, *size))})
    anomaly_map = torch.rand(1, 56, 56, generator=torch.Generator().manual_seed(0))
    item["pred"] = MetaTensor(anomaly_map)
    written = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False)(item)["pred"]
    measured = resize_like(anomaly_map, torch.zeros(1, *size))
    torch.testing.assert_close(measured, written.as_tensor(), rtol=1e-6, atol=1e-6)
