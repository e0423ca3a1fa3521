"""Embeddings in the memory of a GPU, where a fit that passes over them many times need not wait for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dino_uad.ahead import ahead
from dino_uad.embeddings.dataset import EmbeddingDataset
from dino_uad.embeddings.shard import Record

SHARE = 0.25  # of the free memory, at most
_TOGETHER = 64  # slices copied at once


class ResidentEmbeddings:
    """Batches like those of :meth:`EmbeddingDataset.batch`, on the data set's device but for the item numbers.

    Args:
        dataset: the embeddings; all of them are read.
    """

    def __init__(self, dataset: EmbeddingDataset) -> None:
        first = _embeddings(dataset.batch([0]))
        count, self._device = len(dataset), dataset.device
        self._rows = {
            key: torch.empty(count, *value.shape[1:], dtype=value.dtype, device=self._device)
            for key, value in first.items()
        }
        sections = [range(start, min(start + _TOGETHER, count)) for start in range(0, count, _TOGETHER)]
        for section, batch in zip(sections, ahead(dataset.pinned, sections), strict=True):
            for key, value in _embeddings(batch).items():
                self._rows[key][section.start : section.stop].copy_(value, non_blocking=True)

    @staticmethod
    def fits(dataset: EmbeddingDataset) -> bool:
        """Whether all embeddings take no more than :data:`SHARE` of what is free on the data set's GPU."""
        size = sum(value.nbytes for value in _embeddings(dataset.batch([0])).values()) * len(dataset)
        return size <= SHARE * torch.cuda.mem_get_info(dataset.device)[0]

    def batch(self, items: Sequence[int]) -> Record:
        """The given slices, stacked to ``[B,...]``."""
        numbers = torch.tensor(items, dtype=torch.int64)
        chosen = numbers.to(self._device)
        return {key: rows[chosen] for key, rows in self._rows.items()} | {"item": numbers}


def _embeddings(batch: Record) -> Record:
    return {key: value for key, value in batch.items() if key != "item"}
