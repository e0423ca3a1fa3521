"""Slices to volumes."""

import tracemalloc

import pytest
import torch

from dino_uad.metrics import FROC, LabelMaps
from dino_uad.metrics.maps import joined, paired_tensors, volumes_of


def test_slices_that_lie_one_behind_the_other_are_joined_without_a_copy():
    block = torch.rand(5, 1, 3, 4)
    assert torch.equal(joined(list(block[1:])), block[1:, 0])
    assert joined(list(block[1:])).data_ptr() == block[1:].data_ptr()
    for planes in (list(block[::2]), [block[1], block[0]], [block[0], torch.rand(1, 3, 4)], [block[0].mT, block[1].mT]):
        assert torch.equal(joined(planes), torch.cat(planes))


def test_volumes_come_whole_and_pictures_alone():
    maps, masks = list(torch.rand(5, 1, 3, 4)), list(torch.rand(5, 1, 3, 4) > 0.5)
    found = list(volumes_of(maps, masks, [0, 0, 1, 2, 3]))
    assert [len(scores) for scores, _ in found] == [2, 1, 1, 1]
    assert torch.equal(found[0][0], torch.cat(maps[:2])) and torch.equal(found[0][1], torch.cat(masks[:2]))


def test_masks_are_used_as_they_are_or_made_of_what_they_hold():
    scores, mask = torch.rand(2, 1, 3, 4), torch.rand(2, 1, 3, 4) > 0.5
    ((_, found),) = paired_tensors(scores, mask)
    assert found.data_ptr() == mask.data_ptr()
    for stored in (mask.float(), mask.to(torch.uint8) * 255, mask.to(torch.int16)):
        assert torch.equal(next(paired_tensors(scores, stored))[1], mask)


@pytest.mark.parametrize("metric", [FROC(0.9), LabelMaps(0.9, (0.8,), (0.05,))])
def test_a_metric_holds_little_beside_a_volume(metric):
    # Marked voxels, their numbers in 16 bits and one more bool, beside the four bytes of a score.
    maps = torch.nn.functional.interpolate(torch.rand(1, 1, 8, 32, 32), (64, 512, 512), mode="trilinear")[0, 0, :, None]
    masks = maps > 0.95
    output = list(maps), list(masks), [0] * len(maps)
    metric.update(output)
    metric.reset()
    # What NumPy allocates: resident memory also grows by what other tests have left of the heap in pieces.
    tracemalloc.start()
    try:
        metric.update(output)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.9 * maps.nbytes < peak < 2 * maps.nbytes
