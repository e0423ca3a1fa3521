"""A finished cell on disk: ``cell.json``, in the folder that holds its patients' levels, wherever that is moved to."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dino_uad.files import write_json

LEVELS = "levels.pt"


def is_finished(folder: Path) -> bool:
    """Whether a cell's result is in its folder."""
    return (folder / "cell.json").is_file()


def write_cell(result: dict[str, Any], folder: Path) -> None:
    """Write a cell's result; it appears only whole."""
    write_json(defined(result), folder / "cell.json")


def read_cell(folder: Path) -> dict[str, Any]:
    """A cell's result, with NaN for what is undefined and ``levels``, the path of those in the folder."""
    result = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    return _with_nan(result) | {"levels": str(folder / LEVELS)}


def defined(value: Any) -> Any:
    """JSON has no NaN and no infinity: what is undefined, such as pixels without masks, is null in it."""
    if isinstance(value, dict):
        return {key: defined(one) for key, one in value.items()}
    if isinstance(value, list):
        return [defined(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(one) for key, one in value.items()}
    return math.nan if value is None else value
