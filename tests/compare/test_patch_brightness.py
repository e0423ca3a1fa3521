"""Brightness as a method: what the steps around a head make of it."""

import torch
from torch.nn import functional

from dino_uad.compare.brightness import BrightnessHead, PatchBrightness
from dino_uad.detector import AnomalyDetector


def test_a_patch_counts_by_its_mean_brightness_and_its_neighbours():
    image = torch.rand(2, 3, 56, 42, generator=torch.Generator().manual_seed(0))
    network = AnomalyDetector(PatchBrightness(), BrightnessHead(1), image_size=(56, 42), neighbourhood=3)
    embeddings, cls = network.embed(image)
    brightest = image.amax(dim=1)
    assert torch.allclose(embeddings[0, 0, 1, 2], brightest[0, 14:28, 28:42].mean())
    assert torch.allclose(cls[:, 0], brightest.mean(dim=(1, 2)))
    scores = network.raw_scores(embeddings, cls)
    assert torch.allclose(scores[1, 0, 2, 1], brightest[1, 14:56, 0:42].mean())
    expected = functional.interpolate(scores, (56, 42), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(image), expected)
