"""Batches of cached embeddings whose order depends on the seed and the epoch alone, however many ranks there are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dino_uad import parallel
from dino_uad.ahead import ahead
from dino_uad.embeddings.dataset import EmbeddingDataset
from dino_uad.embeddings.resident import ResidentEmbeddings
from dino_uad.settings import require_count


class EmbeddingLoader:
    """Iterates an :class:`EmbeddingDataset` in batches of dictionaries ``{"embedding": [B,C,h,w], ...}``.

    The order is drawn anew from ``(seed, epoch)``: a run that was killed and resumed sees the batches that it would
    have seen. Under ``torch.distributed`` each global batch is divided over the ranks in contiguous shares, so that N
    ranks together see exactly what one process sees; a share may be empty, every rank gets the same number of batches.

    For a GPU the batches are read ahead; from the second pass on they are taken from its memory if they fit there.

    Args:
        dataset: the embeddings.
        batch_size: images per global batch.
        shuffle: draw a new order each epoch.
        drop_last: leave out the smaller last batch of an epoch, if there is at least one full batch. The concentration
            update of the Dirichlet process depends on the number of rows in a batch.
        seed: seed of the order.
    """

    def __init__(
        self,
        dataset: EmbeddingDataset,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        require_count("batch_size", batch_size)
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0
        self._passes = 0
        self._resident: ResidentEmbeddings | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        count = len(self.dataset)
        if self.drop_last and count >= self.batch_size:
            return count // self.batch_size
        return -(-count // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.dataset.device.type != "cuda" or not torch.cuda.is_available():
            return map(self.dataset.batch, self._items())
        self.dataset.build()  # ranks work together on that, which is not for a thread
        self._passes += 1
        # Several ranks would each read and hold all, and use a part of it.
        if self._passes == 2 and not parallel.is_distributed() and ResidentEmbeddings.fits(self.dataset):
            self._resident = ResidentEmbeddings(self.dataset)
        if self._resident is not None:
            return map(self._resident.batch, self._items())
        return ahead(self.dataset.pinned, self._items())

    def _items(self) -> Iterator[list[int]]:
        """The numbers of the slices in each of this rank's batches."""
        count = len(self.dataset)
        order = torch.arange(count)
        if self.shuffle:
            # A product keeps neighbouring seeds from sharing orders: (seed 1, epoch 2) is not (seed 2, epoch 1).
            order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch))
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            shares = order[start : start + self.batch_size].tensor_split(parallel.world_size())
            yield shares[parallel.rank()].tolist()
