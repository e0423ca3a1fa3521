"""One small inference run, and the tables that it leaves."""

import csv
from pathlib import Path

import pytest

import workflows


def table(folder: Path, name: str = "scores") -> list[dict[str, str]]:
    with open(folder / f"{name}.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def infer(root: Path, out: str = "inference", status: int = 0, **more) -> Path:
    more = {"dataset_dir": str(root / "new"), "output_dir": str(root / out), **more}
    if status:
        with pytest.raises(SystemExit) as ended:
            workflows.run("dpmm", root, "inference", **more)
        assert ended.value.code == status
    else:
        workflows.run("dpmm", root, "inference", **more)
    return root / out
