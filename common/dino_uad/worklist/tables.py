"""``scores.csv``, ``slices.csv``, ``findings.csv`` and ``scores.json``, row by row."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dino_uad.detector import FALSE_POSITIVE_RATES, SCAN_RATES, flag_name
from dino_uad.files import as_utf8, atomic_path
from dino_uad.worklist.rows import SAVED, RunStore

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet calculate a cell, and run what a file's name says (OWASP, "CSV injection")."""
ABOVE = [f"above_{100 * rate:g}" for rate in FALSE_POSITIVE_RATES]
NUMBERS = ["image_score", "p_value", *map(flag_name, SCAN_RATES), "foreground", *ABOVE]
SCAN_COLUMNS = [
    "file",
    "status",
    *NUMBERS,
    "findings",
    "largest_size",
    "size_unit",
    "largest_diameter",
    "diameter_unit",
] + ["peak", "peak_slice", "slices", "slices_scored", *SAVED, "seconds", "unlike", "notes", "reason"]
SLICE_COLUMNS = ["file", "slice", *NUMBERS]
FINDING_COLUMNS = [
    "file",
    "finding",
    "size",
    "unit",
    "voxels",
    "diameter",
    "slice_diameter",
    "diameter_unit",
    "peak",
] + ["voxel_x", "voxel_y", "voxel_z", "world_x", "world_y", "world_z", "slice", "first_slice", "last_slice"]


def write_tables(store: RunStore, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the four files, the most anomalous scan first; one row at a time is in memory.

    Args:
        store: the rows.
        folder: where to.
        facts: model, settings and versions, for the head of ``scores.json``.
    """
    with contextlib.ExitStack() as stack:
        scans, slices, findings, everything = (
            stack.enter_context(_open(folder / name, stack))
            for name in ("scores.csv", "slices.csv", "findings.csv", "scores.json")
        )
        writers = [
            csv.DictWriter(stream, columns, extrasaction="ignore")
            for stream, columns in ((scans, SCAN_COLUMNS), (slices, SLICE_COLUMNS), (findings, FINDING_COLUMNS))
        ]
        for writer in writers:
            writer.writeheader()
        everything.write(json.dumps(dict(facts), indent=1).removesuffix("\n}") + ',\n "scans": [')
        for number, row in enumerate(store.rows()):
            file = row["scan"]["file"]
            writers[0].writerow(_cells(row["scan"]))
            writers[1].writerows(_cells({"file": file} | one) for one in row["slices"])
            writers[2].writerows(_cells({"file": file} | _flat(one)) for one in row["findings"])
            nested = row["scan"] | {"findings": row["findings"], "slices": row["slices"]}
            everything.write((",\n  " if number else "\n  ") + json.dumps(nested))
        everything.write("\n ]\n}\n")


def _open(path: Path, stack: contextlib.ExitStack) -> Any:
    return open(stack.enter_context(atomic_path(path)), "w", newline="", encoding="utf-8")


def _flat(finding: Mapping[str, Any]) -> dict[str, Any]:
    """Coordinates in columns of their own."""
    flat = dict(finding) | {"finding": finding["number"]}
    for name in ("voxel", "world"):
        flat |= {f"{name}_{axis}": value for axis, value in zip("xyz", finding[name] or (), strict=False)}
    return flat


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Yes, no and nothing instead of True, False and None; numbers at float32's precision; no text is a formula."""
    return {key: _cell(value) for key, value in row.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return as_utf8("; ".join(map(str, value)))
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, str):
        # The same path, or a reason, which starts with one.
        return as_utf8(f"./{value}" if value.startswith(FORMULA) else value)
    return f"{value:.7g}" if isinstance(value, float) else value
