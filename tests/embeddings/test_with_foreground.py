"""A fit, an evaluation and an inference find the same foreground in the slices of a scan."""

import torch

from dino_uad.detector.foreground import Foreground
from dino_uad.embeddings.with_foreground import WithForeground, flattened
from dino_uad.inferers import SliceOrImageInferer
from helpers import SIZE, detector


def scan(depth=5, seed=0):
    """``[1,H,W,D]``: a body whose brightness falls towards the end, where the last slice is noise alone."""
    noise = 0.02 * torch.rand(1, *SIZE, depth, generator=torch.Generator().manual_seed(seed)) + 1e-4
    noise[:, 14:42, 14:42, :-1] += torch.linspace(0.8, 0.3, depth - 1)
    return noise


def slices_of(entry):
    return [{"image": part} for part in entry["image"].unbind(-1)]


def test_a_data_set_stores_what_inference_finds():
    volume, find = scan(), Foreground("auto")
    stored = [one["foreground"] for one in WithForeground(slices_of, find, 14)({"image": volume})]
    network, seen = detector(foreground="auto").eval(), []
    network.head.fit_batch(*network.embed(volume[None, ..., 0]))
    find_foreground = network.find_foreground

    def recorded(images, threshold=None):
        seen.extend(find_foreground(images, threshold))
        return find_foreground(images, threshold)

    network.find_foreground = recorded
    SliceOrImageInferer(2)(volume[None], network)
    assert torch.equal(torch.stack(stored), torch.stack(seen))
    assert stored[0].any() and not stored[-1].any()


def test_what_the_transform_calls_foreground_is_kept():
    own = torch.zeros(1, *SIZE, dtype=torch.bool)
    kept = WithForeground(lambda entry: [[{**entry, "foreground": own}]], Foreground("auto"), 14)(
        {"image": scan()[..., 0]}
    )
    assert next(flattened(kept))["foreground"] is own
