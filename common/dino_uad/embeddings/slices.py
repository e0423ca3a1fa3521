"""What the workers that load images are handed, and give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dino_uad.data import stack_images
from dino_uad.embeddings.with_foreground import flattened
from dino_uad.errors import explain


class Slices(Dataset):
    """Entries as slices ``([{"image": ..., ...}, ...], why it was skipped or None)``: all that a worker is handed.

    Args:
        data, transform, on_error: of the :class:`EmbeddingDataset`.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable, on_error: str = "raise") -> None:
        self.data = data
        self.transform = transform
        self.on_error = on_error

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, item: int) -> tuple[list[dict[str, Tensor]], str | None]:
        entry = self.data[item]
        try:
            slices = self.transform(dict(entry))
        except Exception as error:
            if self.on_error == "raise":
                raise
            return [], f"{Path(str(entry.get('image'))).name}: {explain(error)}"
        keep = ("image", "foreground")
        return [
            {k: torch.as_tensor(one[k]).as_subclass(Tensor) for k in keep if k in one} for one in flattened(slices)
        ], None


class Loaded(NamedTuple):
    """Message of a worker: slices of some entries, joined, since each tensor costs the receiver the same.

    Attributes:
        counts: of each entry, how many slices it has; None if it was skipped.
        problems: why entries were skipped.
        slices: ``image`` ``[n,1|3,H,W]`` and, if it was made, ``foreground`` ``[n,1,H,W]``; empty without a slice.
    """

    counts: list[int | None]
    problems: list[str]
    slices: dict[str, Tensor]


def join_slices(entries: Sequence[tuple[list[dict[str, Tensor]], str | None]]) -> Loaded:
    """Collate items of :class:`Slices`."""
    slices = [one for found, _ in entries for one in found]
    counts = [len(found) if problem is None else None for found, problem in entries]
    problems = [problem for _, problem in entries if problem is not None]
    return Loaded(counts, problems, {key: stack_images([one[key] for one in slices]) for key in (slices or [{}])[0]})
