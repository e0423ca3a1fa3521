"""The notebook is well formed, and runs from top to bottom in a plain Python process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "common" / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text())["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_it_is_a_notebook_without_outputs(cells: list[dict]):
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert {"kernelspec", "language_info"} <= set(notebook["metadata"])
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["cell_type"] in ("markdown", "code") and isinstance(cell["source"], list)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            compile(source(cell), cell["id"], "exec")


def test_its_links_lead_somewhere(cells: list[dict]):
    text = "\n".join(source(cell) for cell in cells if cell["cell_type"] == "markdown")
    for link in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert (NOTEBOOK.parent / link).exists(), link


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(cells: list[dict], tmp_path: Path):
    code = "\n\n".join(source(cell) for cell in cells if cell["cell_type"] == "code")
    environment = {**os.environ, "MPLBACKEND": "Agg", "QUICKSTART_OUT": str(tmp_path / "out")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=3000
    )
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "out" / "evaluation" / "metrics.json").read_text())["metrics"]
    assert metrics["pixel_auroc"] > 0.5
    assert list((tmp_path / "out" / "inference").glob("*_anomaly.nii.gz"))
