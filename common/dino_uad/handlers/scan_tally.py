"""Gathers what decisions on whole images and scans are calibrated on, over batches and processes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad import parallel


class ScanTally:
    """Image scores and max-pooled anomaly maps of normal validation images: 4 bytes a patch.

    Args:
        loader: where the batches come from; its ``dataset`` tells the group and the scan of an ``item``. Without one,
            each image is a group and a scan of its own.
        device: on which processes exchange tensors (NCCL knows no other than the GPU).
    """

    def __init__(self, loader: Iterable, device: torch.device | str = "cpu") -> None:
        self._device = device
        dataset = getattr(loader, "dataset", None)
        self._group, self._scan = getattr(dataset, "group", None), getattr(dataset, "scan", None)
        self._items: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._maps: list[Tensor] = []
        self._count = 0

    def add(self, batch: Mapping[str, Tensor], scores: Tensor, maps: Tensor, grid: Sequence[int]) -> None:
        """Take in the image scores ``[B]`` and the maps ``[B,1,H,W]`` of a batch; ``grid`` is ``(h, w)``."""
        count = len(scores)
        self._items.append(batch["item"] if self._group else torch.arange(self._count, self._count + count))
        self._scores.append(scores.float().cpu())
        self._maps.append(F.adaptive_max_pool2d(maps, tuple(grid))[:, 0].cpu())
        self._count += count

    def gathered(self, grid: Sequence[int]) -> tuple[Tensor, list[Hashable], Tensor, list[Hashable]]:
        """Scores ``[n]``, groups, maps ``[n,h,w]`` and scans of all processes, in the order of the data set.

        Raises:
            ValueError: there were no images.
        """
        empty = torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0, *grid)
        kept = zip(empty, (self._items, self._scores, self._maps), strict=True)
        items, scores, maps = (
            parallel.gather_rows(torch.cat([start, *parts]).to(self._device)).cpu() for start, parts in kept
        )
        if not len(items):
            raise ValueError("no normal validation images to calibrate on: check the validation data list")
        order = items.argsort(stable=True)
        numbers = items[order].tolist()
        groups, scans = (
            [of(number) for number in numbers] if of else list(range(len(numbers))) for of in (self._group, self._scan)
        )
        return scores[order], groups, maps[order], scans
