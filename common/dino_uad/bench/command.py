"""``python -m dino_uad bench``: run rows, write each at once to ``bench.json`` and ``bench.md``."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from dino_uad import parallel
from dino_uad.bench.all_rows import PEERS, ROWS, select_rows
from dino_uad.bench.machine import describe_machine, load_per_core
from dino_uad.bench.markdown import to_markdown
from dino_uad.bench.settings import Settings
from dino_uad.files import atomic_path, write_json
from dino_uad.settings import require_count

Report = dict[str, Any]


def bench(
    out: str = "runs/bench",
    rows: str | Sequence[str] | None = None,
    quick: bool = False,
    resume: bool = False,
    device: str | None = None,
    threads: int | None = None,
    repeats: int = 5,
    render: str | None = None,
) -> Report:
    """Measure, write ``out/bench.json`` and ``out/bench.md``, and print the latter.

    Rows of an earlier run in the same folder are kept unless they are measured again; a machine, device, number of
    threads or size that differs starts over.

    Args:
        out: folder of the two files.
        rows: names separated by commas, such as ``em,score``; all but the slow ones when None.
        quick: small sizes: a test of the benchmark, not a measurement.
        resume: leave out rows that the folder has already.
        device: "cpu" or "cuda"; CUDA when None and there is one.
        threads: of every library that takes part; torch's default when None.
        repeats: timed runs of each variant.
        render: a ``bench.json`` to show again instead of measuring.

    Returns:
        The content of ``bench.json``; the same on every rank but for the numbers.
    """
    if render is not None:
        return _show(_read(Path(render)))
    require_count("--repeats", repeats)
    if threads is not None:
        require_count("--threads", threads)
    with parallel.process_group(device) as place:
        settings = Settings(place, threads or torch.get_num_threads(), repeats, quick)
        torch.set_num_threads(settings.threads)
        report = _start_report(Path(out), settings)
        for name in select_rows(rows, parallel.is_distributed()):
            if resume and name in report["rows"]:
                continue
            if parallel.rank() == 0:
                print(f"measuring {name} ...", file=sys.stderr, flush=True)
            report["rows"] = _in_order({**report["rows"], name: _run_row(name, settings)})
            if parallel.rank() == 0:
                _write(Path(out), report)
        return _show(report)


def _show(report: Report) -> Report:
    if parallel.rank() == 0:
        print(to_markdown(report))
    return report


def _read(path: Path) -> Report:
    if not path.is_file():
        raise FileNotFoundError(f"no benchmark result at {path}; expected the bench.json that `bench --out DIR` writes")
    return json.loads(path.read_text(encoding="utf-8"))


def _run_row(name: str, settings: Settings) -> dict[str, Any]:
    if name in PEERS and find_spec(PEERS[name]) is None:
        return {"name": name, "skipped": f"{PEERS[name]} is not installed, see requirements-bench.txt"}
    before = load_per_core()
    row = ROWS[name](settings).to_json()
    gc.collect()
    return {**row, "load_per_core": [before, load_per_core()]}


def _start_report(out: Path, settings: Settings) -> Report:
    """Return the folder's report if machine and settings are the same; else one without rows."""
    report: Report = {
        "machine": describe_machine(settings.device),
        "device": settings.device.type,
        "threads": settings.threads,
        "ranks": parallel.world_size(),
        "repeats": settings.repeats,
        "quick": settings.quick,
    }
    path = out / "bench.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = all(found.get(key) == value for key, value in report.items())
    return {**report, "rows": found["rows"] if same else {}}


def _in_order(rows: dict[str, Any]) -> dict[str, Any]:
    return {name: rows[name] for name in ROWS if name in rows}


def _write(out: Path, report: Report) -> None:
    write_json(report, out / "bench.json")
    with atomic_path(out / "bench.md") as temporary:
        temporary.write_text(to_markdown(report), encoding="utf-8")
