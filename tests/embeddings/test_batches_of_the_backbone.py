"""How many images the backbone is given at a time."""

import pytest
import torch

from dino_uad.embeddings.embed import Embedder
from dino_uad.embeddings.slices import Loaded
from helpers import backbone


@pytest.mark.parametrize(
    ("device", "batch_size", "side", "expected"),
    [
        ("cpu", None, 448, 8),
        ("cpu", 3, 448, 3),
        ("cuda", None, 448, 32),  # 32 × 32 patches of 14 pixels
        ("cuda", None, 224, 128),
        ("cuda", None, 1400, 8),
        ("cuda", 3, 448, 3),
    ],
)
def test_a_gpu_is_given_more_images_the_smaller_they_are(device, batch_size, side, expected):
    embedder = Embedder(backbone(), torch.device(device), batch_size, num_workers=0)
    empty, one = Loaded([0], [], {}), Loaded([1], [], {"image": torch.zeros(1, 1, side, side)})
    assert embedder.images_a_call([empty, one]) == expected
    assert embedder.images_a_call([empty]) == (batch_size or 8)
