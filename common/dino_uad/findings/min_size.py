"""The smallest finding that counts, as people write it: ``0.5 ml``, ``20 mm2``, ``30 px``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from dino_uad.findings.grid import ScanGrid

UNITS = {"ml": "ml", "cm3": "ml", "cm³": "ml", "mm2": "mm2", "mm²": "mm2", "px": "px", "": None}


@dataclass(frozen=True)
class MinSize:
    """A smallest size; without ``unit`` in the one the scan has (see :attr:`ScanGrid.unit`).

    Attributes:
        size: 0 or more.
        unit: ``ml`` of volume, ``mm2`` or ``px`` of area in the slice where a finding is largest, or None.
    """

    size: float = 0.0
    unit: str | None = None

    @classmethod
    def parse(cls, value: Any) -> MinSize:
        """From a number, or a text such as ``"0.5 ml"``; ValueError for anything else."""
        match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([a-zA-Z]*[23²³]?)\s*", str(value))
        try:
            size, unit = float(match[1]), UNITS[match[2].lower()]
        except (TypeError, KeyError, ValueError):
            size, unit = math.nan, None
        if not 0 <= size < math.inf:
            raise ValueError(
                f"smallest size {value!r} found; expected 0 (all), or a number with or without a unit: "
                "'0.5 ml' of volumes, '20 mm2' of a slice, '30 px' of a picture"
            )
        return cls(size, unit)

    def require_fits(self, grid: ScanGrid) -> None:
        """Raise ValueError if a kind of file cannot tell sizes in this unit."""
        if grid.no_spacing:  # others of its kind do: a few of many radiographs
            return
        known = {"px", "ml", "mm2"} if grid.unit == "ml" else {"px", grid.unit}
        if self.size and self.unit is not None and self.unit not in known:
            raise ValueError(
                f"smallest size of {self.size:g} {self.unit} found for a "
                f"{'picture, whose file has no millimetres' if grid.unit == 'px' else 'single slice'}; "
                f"expected one in {' or '.join(sorted(known))}"
            )
