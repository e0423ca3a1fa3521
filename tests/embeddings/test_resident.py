"""Embeddings held on a GPU: the batches of the cache, one reading of it, and not where they would fill the memory."""

from unittest import mock

import pytest
import torch
from test_embeddings import embeddings

from devices.absent_gpu import absent_gpu
from dino_uad.embeddings import EmbeddingDataset, EmbeddingLoader


def passes(data, count):
    loader = EmbeddingLoader(data, 2, shuffle=True, seed=3)
    found = []
    for epoch in range(count):
        loader.set_epoch(epoch)
        found += loader
    return found


@pytest.mark.parametrize(("free", "held"), [(8 << 30, True), (100, False)])
def test_later_passes_are_those_of_the_cache(tmp_path, free, held):
    expected = passes(embeddings(tmp_path, 5), 3)
    with absent_gpu(), mock.patch.object(torch.cuda, "mem_get_info", lambda *_: (free, 16 << 30)):
        data = embeddings(tmp_path, 5)
        data.build()  # where the others were made: another device rounds its products differently
        data.device = torch.device("cuda:0")
        with mock.patch.object(EmbeddingDataset, "batch", autospec=True, side_effect=EmbeddingDataset.batch) as read:
            found = passes(data, 3)
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert one.keys() == other.keys() and one["embedding"].is_cuda == (held and number >= 3)
            for key, value in one.items():
                assert torch.equal(value.cpu(), other[key])
            assert not one["item"].is_cuda
        # A pass of three batches; then the size is asked and all rows are read at once; or three passes and the size.
        assert read.call_count == (3 + 3 if held else 9 + 1)


def test_ranks_hold_nothing(tmp_path):
    alone = {"is_distributed": lambda: True, "rank": lambda: 0, "world_size": lambda: 1}
    with absent_gpu():
        data = embeddings(tmp_path, 4)
        data.build()
        data.device = torch.device("cuda:0")
        with mock.patch.multiple("dino_uad.parallel", **alone):
            assert not any(batch["embedding"].is_cuda for batch in passes(data, 2))
