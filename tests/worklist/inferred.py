"""One small inference run, and the tables that it leaves."""

import csv
from pathlib import Path

import pytest

import workflows
from dino_uad.worklist import Worklist


def table(folder: Path, name: str = "scores") -> list[dict[str, str]]:
    with open(folder / f"{name}.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def one_picture(folder: Path) -> tuple[Worklist, list[dict[str, str]]]:
    """A list of one picture, and the data list with it; the model is only bytes."""
    (folder / "model.pt").write_bytes(b"model")
    (folder / "a.png").write_bytes(b"old")
    return list_in(folder), [{"image": str(folder / "a.png")}]


def list_in(folder: Path) -> Worklist:
    """The list of :func:`one_picture`, opened again."""
    return Worklist(folder / "out", folder / "model.pt", folder)


def infer(root: Path, out: str = "inference", status: int = 0, **more) -> Path:
    more = {"dataset_dir": str(root / "new"), "output_dir": str(root / out), **more}
    if status:
        with pytest.raises(SystemExit) as ended:
            workflows.run("dpmm", root, "inference", **more)
        assert ended.value.code == status
    else:
        workflows.run("dpmm", root, "inference", **more)
    return root / out
