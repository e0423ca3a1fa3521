"""Which rows of a memory bank a process holds, where several hold it together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dino_uad.parallel import collect_rows, rank, world_size


@dataclass(frozen=True)
class Part:
    """One rank's part of a bank.

    Attributes:
        numbers: ``[M_r]`` ascending numbers of its rows in the whole bank.
        ends: ``[N]`` where the rows of each image end in the whole bank.
        here: ``[N]`` bool, on the CPU: the images whose rows are here.
    """

    numbers: Tensor
    ends: Tensor
    here: Tensor

    @classmethod
    def of_images(cls, ends: Tensor, here: Tensor) -> Part:
        """The rows of some images."""
        rows = torch.arange(int(ends[-1]), device=ends.device)
        return cls(rows[here.to(ends.device).repeat_interleave(row_counts(ends))], ends, here.cpu())

    @classmethod
    def of_rank(cls, ends: Tensor, rows: int) -> Part:
        """This rank's of a bank that is to be divided: every ``world_size``-th image.

        A bank of version 0.1 does not tell its images (``ends`` is empty), and is divided by rows.
        """
        if len(ends):
            return cls.of_images(ends, torch.arange(len(ends)) % world_size() == rank())
        numbers = torch.arange(rows, device=ends.device)[rank() :: world_size()]
        return cls(numbers, ends, torch.empty(0, dtype=torch.bool))

    @property
    def local_ends(self) -> Tensor:
        """``[N]`` where the rows of each image end among those of this part; images that are elsewhere have none."""
        return torch.where(self.here.to(self.ends.device), row_counts(self.ends), 0).cumsum(0)

    def of_selected(self, chosen: Tensor) -> tuple[Tensor, Part]:
        """``[M_r]`` bool, which rows have ``chosen`` numbers (ascending), and the part of the bank of those alone."""
        kept = torch.isin(self.numbers, chosen)
        numbers = torch.searchsorted(chosen, self.numbers[kept])
        return kept, Part(numbers, torch.searchsorted(chosen, self.ends), self.here)

    def whole(self, rows: Tensor) -> Tensor | None:
        """The whole bank ``[M,C]`` of int16, in the memory of rank 0's host, None elsewhere; all ranks must call it."""
        parts = collect_rows(rows)
        numbers = collect_rows(self.numbers.to(rows.device))
        return None if parts is None else parts[numbers.argsort()]


def row_counts(ends: Tensor) -> Tensor:
    """Rows of each image, ``[N]``."""
    return ends - functional.pad(ends[:-1], (1, 0))
