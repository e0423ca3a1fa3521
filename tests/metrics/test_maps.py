"""Slices to volumes."""

import torch

from dino_uad.metrics.maps import joined, volumes_of


def test_slices_that_lie_one_behind_the_other_are_joined_without_a_copy():
    block = torch.rand(5, 1, 3, 4)
    assert torch.equal(joined(list(block[1:])), block[1:, 0])
    assert joined(list(block[1:])).data_ptr() == block[1:].data_ptr()
    for planes in (list(block[::2]), [block[1], block[0]], [block[0], torch.rand(1, 3, 4)], [block[0].mT, block[1].mT]):
        assert torch.equal(joined(planes), torch.cat(planes))


def test_volumes_come_whole_and_pictures_alone():
    maps, masks = list(torch.rand(5, 1, 3, 4)), list(torch.rand(5, 1, 3, 4) > 0.5)
    found = list(volumes_of(maps, masks, ["a", "a", None, "b", None]))
    assert [len(scores) for scores, _ in found] == [2, 1, 1, 1]
    assert torch.equal(found[0][0], torch.cat(maps[:2])) and torch.equal(found[0][1], torch.cat(masks[:2]))
