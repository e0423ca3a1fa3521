"""Two processes, with unequal shares of the images, give what one process gives."""

import torch

from dino_uad.metrics import (
    AUPRO,
    FROC,
    DiceAtThresholds,
    ImageCurves,
    ImageIntervals,
    PixelCurves,
    PixelIntervals,
    ThresholdAtFPR,
)
from workflows import two_ranks


def results(share):
    """Every metric on the images ``share`` of a fixed set whose score range differs from image to image."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(5, 1, 9, 8, generator=generator) < 0.2
    scale = 10.0 ** torch.arange(-2, 3).reshape(5, 1, 1, 1)
    maps = scale * (torch.rand(masks.shape, generator=generator) + 0.3 * masks)
    image_pair = (maps.amax(dim=(1, 2, 3))[share], torch.tensor([0, 1, 0, 0, 1])[share])
    pixel_pair = (maps[share], masks[share])
    # The last image, alone in its process, is of the second patient too.
    groups = ["a", "b", "c", "d", "b"][share]
    found = {}
    for metric, output in [
        (PixelCurves(), pixel_pair),
        (ImageCurves(), image_pair),
        (AUPRO(), pixel_pair),
        (DiceAtThresholds([0.1, 0.5, 0.9, 0.95, 0.99]), pixel_pair),
        (PixelIntervals([0.1, 0.5, 0.9, 0.95, 0.99], replicates=50), (*pixel_pair, groups)),
        (ImageIntervals(replicates=50), (*image_pair, groups)),
        (ThresholdAtFPR(), maps[share]),
        (FROC(threshold=0.5), (*pixel_pair, range(len(pixel_pair[0])))),
    ]:
        metric.update(output)
        # Twice: computing must not add the other process's counts to one's own.
        metric.compute()
        found[type(metric).__name__] = metric.compute()
    closer = ThresholdAtFPR(bins=1 << 12)
    closer.update(maps[share])
    closer.look_closer()
    closer.update(maps[share])
    closer.compute()
    return found | {"closer look": closer.compute()}


def process(rank, folder):
    torch.save(results(slice(0, 4) if rank == 0 else slice(4, 5)), f"{folder}/{rank}.pt")


def test_two_processes_equal_one(tmp_path):
    two_ranks(process, str(tmp_path))
    expected = results(slice(None))
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, rtol=1e-12, atol=0, equal_nan=True)
