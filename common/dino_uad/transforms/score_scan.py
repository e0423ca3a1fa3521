"""From what the network said of each slice to the numbers of the whole scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from dino_uad.detector import FALSE_POSITIVE_RATES, SCAN_RATES, NormalScans, flag_name, read_normal_scans
from dino_uad.findings import ScanGrid
from dino_uad.inferers import SUMMARY


class ScoreScand(MapTransform):
    """Puts ``scan`` (a dictionary) and ``slices`` (a list of them, empty for pictures) into the item, as JSON types.

    ``scan`` has ``image_score`` (of a volume: of its highest slice), ``p_value`` among normal validation scans
    (:class:`~dino_uad.detector.conformal.ConformalTable`), ``flagged_5`` and ``flagged_1`` (None where the calibration
    set is too small to promise that), ``foreground`` (share of the pixels that are), ``above_10`` and so on (share of
    the foreground at or above the threshold of that false positive rate). Each of ``slices`` has the same, and
    ``slice``, counted from 1 as in the file; slices that were left out have no score. Put it before ``Invertd``, which
    drops what the inferer said. Without that (an exported network) nothing is added.

    Args:
        keys: the anomaly map as the inferer returned it, with its meta data.
        model: the ``model.pt`` with the calibration; read when the first map arrives.
        axcodes: orientation of the network's volumes, whose last letter is the direction of the slices.
    """

    def __init__(self, keys: KeysCollection, model: str, axcodes: str = "PLS", allow_missing_keys: bool = False):
        super().__init__(keys, allow_missing_keys)
        self.model = Path(model)
        self.axcodes = axcodes
        self._normal: NormalScans | None = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if self._normal is None:
            self._normal = read_normal_scans(self.model)
        for key in self.key_iterator(result):
            anomaly_map = result[key]
            if SUMMARY in anomaly_map.meta:
                numbers = torch.as_tensor(anomaly_map.meta[SUMMARY]).as_subclass(Tensor).cpu().double()
                numbers = numbers.reshape(-1, numbers.shape[-1])
                grid = ScanGrid.from_meta(anomaly_map.meta, self.axcodes)
                result["scan"], result["slices"] = scan_numbers(numbers, grid, self._normal)
        return result


def scan_numbers(numbers: Tensor, grid: ScanGrid, normal: NormalScans) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The scan's numbers and its slices'.

    Args:
        numbers: ``[D, 2 + T]`` of each slice: image score (NaN where it was not run), share of foreground, and shares
            of the foreground at or above each threshold.
        grid: of the file.
        normal: what to compare with.
    """
    run = numbers[~numbers[:, 0].isnan()]
    volume = grid.affine is not None and grid.slices > 1
    score = run[:, 0].max()[None] if len(run) else torch.full((1,), torch.nan, dtype=torch.float64)
    table = normal.scans if volume else normal.images
    weights = run[:, 1:2]
    above = (run[:, 2:] * weights).sum(0) / weights.sum().clamp_min(1e-12)
    foreground = weights.sum() / max(len(numbers), 1)
    scan = _named(torch.cat([score, foreground[None], above]), table.p_values(score.float())[0], table)
    scan |= {"slices": grid.slices, "slices_scored": len(run)}
    if not volume:
        return scan, []
    p_values = normal.images.p_values(numbers[:, 0].float())
    rows = [{"slice": grid.slice_number(k)} | _named(row, p_values[k], normal.images) for k, row in enumerate(numbers)]
    return scan, sorted(rows, key=lambda row: row["slice"])


def _named(row: Tensor, p_value: Tensor, table: Any) -> dict[str, Any]:
    values = [None if value != value else value for value in row.tolist()]
    p = float(p_value)
    named = {"image_score": values[0], "p_value": None if p != p else p}
    named |= {flag_name(rate): table.flagged(p, rate) for rate in SCAN_RATES}
    shares = [f"above_{100 * rate:g}" for rate in FALSE_POSITIVE_RATES]
    return named | {"foreground": values[1]} | dict(zip(shares, values[2:], strict=True))
