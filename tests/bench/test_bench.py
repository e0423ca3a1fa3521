"""The benchmark at small sizes: every row runs, is right, and can be written and read. Nothing here looks at times."""

import json
import math
from dataclasses import replace

import pytest
import torch

from dino_uad.bench.all_rows import DISTRIBUTED, ON_REQUEST, ROWS, select_rows
from dino_uad.bench.command import bench
from dino_uad.bench.row import Figure, Row
from dino_uad.bench.rows import feeding, large_fit, memory, ranks, selection
from dino_uad.bench.rows.pixels import sorted_curves
from dino_uad.bench.settings import Settings
from dino_uad.bench.timing import interleave
from dino_uad.measure import peak_extra_megabytes

QUICK = Settings(torch.device("cpu"), 1, repeats=1, quick=True)


SINGLE = [
    "em",
    "sklearn",
    "score",
    "ar",
    "stage",
    "ar_training",
    "forward",
    "fit",
    "pixels",
    "coreset",
    "nearest",
    "throughput",
    "index",
]


@pytest.mark.parametrize("name", SINGLE)
def test_timed_code_is_right(name):
    if name == "index":
        pytest.importorskip("faiss")
    row = ROWS[name](QUICK).to_json()
    assert row["name"] == name and row["quick"] and row["timings"] and row["figures"]
    assert all(
        timing["wall_median"] > 0 and len(timing["wall"]) == len(timing["cpu"]) for timing in row["timings"].values()
    )
    assert all(figure["reached"] is None for figure in row["figures"]), "quick sizes reach nothing"
    assert row["checks"] and all(check["ok"] for check in row["checks"]), row["checks"]
    json.dumps(row, allow_nan=False)


def test_memory_of_a_volume_is_measured_for_inference_and_evaluation():
    row = ROWS["volume"](QUICK).to_json()
    assert [figure["name"].split(",")[0] for figure in row["figures"][::2]] == ["inference", "evaluate"]
    assert all(figure["value"] > 0 for figure in row["figures"][1::2])


def test_memory_of_a_fit_is_measured_for_each_method():
    row = ROWS["memory"](QUICK).to_json()
    assert [figure["name"].split(",")[1].strip() for figure in row["figures"][1::2]] == [*memory.METHODS]
    assert all(0 <= figure["value"] < 1000 for figure in row["figures"])
    assert len(row["notes"]) == len(memory.METHODS) + 1 and row["checks"][0]["ok"]


def test_writes_rows_and_resumes(tmp_path, monkeypatch, capsys):
    arguments = {"quick": True, "threads": torch.get_num_threads(), "repeats": 1, "device": "cpu", "out": str(tmp_path)}
    monkeypatch.setitem(ROWS, "em", _row("em"))
    monkeypatch.setitem(ROWS, "ar", _row("ar"))
    bench(rows="ar", **arguments)
    monkeypatch.setitem(ROWS, "ar", None)
    capsys.readouterr()
    report = bench(rows=("em", "ar"), resume=True, **arguments)
    markdown = capsys.readouterr().out.removesuffix("\n")
    assert report == json.loads((tmp_path / "bench.json").read_text()) == bench(render=str(tmp_path / "bench.json"))
    assert list(report["rows"]) == ["em", "ar"]
    assert report["machine"]["versions"]["torch"] == torch.__version__
    assert markdown == (tmp_path / "bench.md").read_text() == capsys.readouterr().out.removesuffix("\n")
    assert "| em | speed | 2 × |  | ≥ 1 × |  |" in markdown
    bench(rows="em", **{**arguments, "repeats": 2})
    assert list(json.loads((tmp_path / "bench.json").read_text())["rows"]) == ["em"], "other settings start over"


def _row(name):
    def measure(settings):
        row = Row(name, "a row", {}, settings)
        row.figure("speed", 2.0, "×", at_least=1)
        return row

    return measure


def test_row_without_its_peer_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dino_uad.bench.command.find_spec", lambda name: None)
    bench(str(tmp_path), rows="sklearn", device="cpu", threads=torch.get_num_threads())
    assert "sklearn is not installed, see requirements-bench.txt" in capsys.readouterr().out


def test_selection_of_rows():
    assert select_rows(None, distributed=True) == list(DISTRIBUTED)
    assert not set(ON_REQUEST) & set(select_rows(None, distributed=False))
    assert select_rows("em,ar", distributed=False) == ["em", "ar"]
    with pytest.raises(ValueError, match=r"unknown rows em2; known: start, em"):
        select_rows("em2", distributed=False)
    with pytest.raises(ValueError, match="under torchrun"):
        select_rows("em", distributed=True)


def test_variants_take_turns(monkeypatch):
    monkeypatch.setattr("dino_uad.bench.timing.SHORTEST_RUN", 0.0)
    calls = []
    timings = interleave({name: lambda name=name: calls.append(name) for name in "ab"}, replace(QUICK, repeats=3))
    assert "".join(calls).endswith("ababab")
    assert all(len(timing.wall) == len(timing.cpu) == 3 for timing in timings.values())


def test_memory_is_that_of_the_call():
    peak = peak_extra_megabytes(lambda: torch.ones(100_000_000 // 4).sum(), torch.device("cpu"))
    assert 90 < peak < 130


def test_aims():
    assert Figure("ratio", 2.0, at_most=2.5).reached
    assert Figure("ratio", 2.0, at_least=2.5).reached is False
    assert Figure("ratio", 2.0).reached is None


def test_sorted_curves_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    scores, mask = torch.rand(500, generator=generator), torch.rand(500, generator=generator) > 0.7
    area, precision = sorted_curves(scores, mask)
    assert math.isclose(area, metrics.roc_auc_score(mask, scores), abs_tol=1e-12)
    assert math.isclose(precision, metrics.average_precision_score(mask, scores), abs_tol=1e-12)


def test_plain_greedy_covers_a_line():
    angles = torch.linspace(0, 1, 101)
    chosen = selection.plain_greedy(torch.stack([angles.cos(), angles.sin()], 1), 3)
    assert {0, 100} <= set(chosen.tolist())


def test_rows_of_a_rank_can_be_compared(tmp_path, monkeypatch):
    monkeypatch.setenv(ranks.RESULT, str(tmp_path / "result.pt"))
    ranks._leave(torch.arange(3))
    assert torch.load(tmp_path / "result.pt", weights_only=True).tolist() == [0, 1, 2]


def test_whole_fits_read_embed_and_fit_every_picture():
    row = large_fit.large_fit(QUICK)
    assert len(row.checks) == 4 and all(check.ok for check in row.checks)
    assert all(figure.value > 0 for figure in row.figures)


def test_a_backbone_that_takes_no_time_is_fed_every_picture():
    row = feeding.feeding(QUICK)
    assert all(check.ok for check in row.checks)
    assert [figure.unit for figure in row.figures] == ["ms", "/s", "ms"]
    assert all(figure.value > 0 for figure in row.figures)


@pytest.mark.parametrize("option", ["threads", "repeats"])
def test_numbers_that_are_none_are_refused(tmp_path, option):
    with pytest.raises(ValueError, match=f"--{option} is 0; expected a whole number of at least 1"):
        bench(str(tmp_path), rows="index", **{option: 0})
