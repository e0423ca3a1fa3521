"""``multi_gpu_evaluate.json`` on several processes: every file once, the metrics and the report of one process."""

import json
import re
from functools import partial

import pytest

from workflows import METHODS, RANKS_ON, overrides, run, run_in_group, start

# What a page shows of the run itself, and what browsers need: times, memory, commands, pictures.
OF_THE_RUN = re.compile(r"<style>.*?</style>|base64,[^\"']*|<h2[^>]*>[^<]*[Rr]un.*", re.DOTALL)
FEWER = {f"validate#additional_metrics#{name}_interval#replicates": 20 for name in ("pixel", "image")}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def finished(function, *arguments, **more):
    process = start(partial(function, **RANKS_ON, **more), *arguments)
    process.join()
    assert process.exitcode == 0


@pytest.fixture(scope="module", params=METHODS)
def evaluated(request, tmp_path_factory):
    """A method, the folder of its fit, and what one process reports."""
    folder = tmp_path_factory.mktemp(request.param)
    finished(run, request.param, folder)
    finished(run, request.param, folder, "evaluate", **FEWER)
    return request.param, folder, folder / "evaluate"


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_report_what_one_process_reports(evaluated, world, tmp_path):
    method, folder, alone = evaluated
    evaluation = partial(run, method, folder, "distributed evaluate", output_dir=str(tmp_path), **RANKS_ON, **FEWER)
    assert run_in_group(world, evaluation) == [0] * world
    one, many = (json.loads((place / "metrics.json").read_text()) for place in (alone, tmp_path))
    assert many["images"] == one["images"] == {"normal": 2, "anomalous": 2}
    counted = {key: value for key, value in one["metrics"].items() if "dice" in key}  # one pixel more or less
    assert many["metrics"] == pytest.approx(one["metrics"] | {k: many["metrics"][k] for k in counted}, 1e-5, 1e-5, True)
    assert {key: many["metrics"][key] for key in counted} == pytest.approx(counted, rel=2e-3, abs=1e-4, nan_ok=True)
    pages = [OF_THE_RUN.sub("", (place / "report.html").read_text()) for place in (alone, tmp_path)]
    assert NUMBER.sub("#", pages[0]) == NUMBER.sub("#", pages[1])
    numbers = [[float(number) for number in NUMBER.findall(page)] for page in pages]
    assert len(numbers[0]) > 50
    assert numbers[1] == pytest.approx(numbers[0], rel=2e-3, abs=2e-3)
    assert sorted(p.name for p in alone.rglob("*.png")) == sorted(p.name for p in tmp_path.rglob("*.png"))


def test_more_ranks_than_files(tmp_path):
    overrides("dino_ad", tmp_path)
    for path in tmp_path.glob("data/test/*/*/?1.png"):
        path.unlink()
    finished(run, "dino_ad", tmp_path)
    evaluation = partial(run, "dino_ad", tmp_path, "distributed evaluate", files_per_batch=1, **RANKS_ON, **FEWER)
    assert run_in_group(3, evaluation) == [0, 0, 0]
    found = json.loads((tmp_path / "distributed evaluate/metrics.json").read_text())
    assert found["images"] == {"normal": 1, "anomalous": 1}
    assert found["metrics"]["image_auroc"] in (0, 1)


def test_a_bank_divided_over_ranks_that_have_unequal_numbers_of_images(tmp_path):
    finished(run, "anomaly_dino", tmp_path)
    finished(run, "anomaly_dino", tmp_path, "evaluate", **FEWER)
    sharded = {"network_def#head#sharded": True, "files_per_batch": 1, "timeout_minutes": 1} | RANKS_ON
    evaluation = partial(run, "anomaly_dino", tmp_path, "distributed evaluate", **sharded, **FEWER)
    assert run_in_group(3, evaluation) == [0, 0, 0]  # of four images
    kinds = ("evaluate", "distributed evaluate")
    one, many = (json.loads((tmp_path / kind / "metrics.json").read_text())["metrics"] for kind in kinds)
    assert many == pytest.approx(one, rel=1e-5, abs=1e-5, nan_ok=True)
