"""Scans for inference: one that cannot be read does not end the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.data import Dataset
from monai.data.utils import list_data_collate

from dino_uad.errors import explain
from dino_uad.settings import require_choice

FAILED = "failed"
ON_ERROR = ("report", "skip", "raise")


class ScanDataset(Dataset):
    """A MONAI ``Dataset`` whose items may be ``{"image": path, "failed": reason}``.

    Args:
        data: entries of a data list.
        transform: preprocessing.
        on_error: ``"report"`` and ``"skip"`` hand the reason on, for the table of results; ``"raise"`` ends the run.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable, on_error: str = "report") -> None:
        require_choice("on_error", on_error, ON_ERROR)
        super().__init__(data, transform)
        self.on_error = on_error

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except Exception as error:
            if self.on_error == "raise":
                raise
            return {"image": self.data[index]["image"], FAILED: explain(error)}


def collate_scans(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """MONAI's collation of the items that could be read; the others are listed under ``failed``."""
    good = [item for item in batch if FAILED not in item]
    collated = list_data_collate(good) if good else {}
    return {**collated, FAILED: [dict(item) for item in batch if FAILED in item]}
