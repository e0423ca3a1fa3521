"""Comparisons: what the command line means, and the table's arithmetic."""

import importlib
import json
import math
import re
import shutil
import sys
from unittest import mock

import pytest
import torch

import dino_uad
from dino_uad.bundle_run import find_bundle
from dino_uad.compare import config
from dino_uad.compare.cell import fit
from dino_uad.compare.config import Cell, Settings, data_key
from dino_uad.compare.false_positives import KINDS
from dino_uad.compare.run import compare
from dino_uad.compare.spec import BackboneSpec, Method, words
from dino_uad.compare.stored import read_cell, write_cell
from dino_uad.compare.table import summarise, write_markdown, write_plot
from dino_uad.data import datalist
from helpers import labelled_pictures
from workflows import run


def test_method_with_settings():
    method = Method.parse("dpmm:score_type=likelihood:normalize=false:n_components=7")
    assert method == Method("dpmm", {"score_type": "likelihood", "normalize": False, "n_components": 7})
    assert method.name == "dpmm score_type=likelihood normalize=False n_components=7"


@pytest.mark.parametrize("text", ["dpmm:oops", ":a=1", "dpmm:=3"])
def test_malformed_method_says_what_is_expected(text):
    with pytest.raises(ValueError, match="expected bundle or bundle:key=value"):
        Method.parse(text)


@pytest.mark.parametrize(
    ("text", "expected", "name"),
    [
        ("dinov2_vits14", BackboneSpec("dinov2_vits14"), "dinov2_vits14"),
        ("dinov2_vits14@8", BackboneSpec("dinov2_vits14", (8,), False), "dinov2_vits14 block 9"),
        ("a@8+11", BackboneSpec("a", (8, 11), False), "a block 9+12"),
        ("a:random", BackboneSpec("a", random=True), "a random weights"),
    ],
)
def test_backbone(text, expected, name):
    assert BackboneSpec.parse(text) == expected
    assert BackboneSpec.parse(text).name == name


@pytest.mark.parametrize("text", ["a@x", "a:rnd", "@8"])
def test_malformed_backbone_says_what_is_expected(text):
    with pytest.raises(ValueError, match="expected arch, arch@8"):
        BackboneSpec.parse(text)


def test_words_as_fire_passes_them():
    assert words("a, b") == words(("a", "b")) == ["a", "b"]
    assert words(3) == ["3"] and words((0, 1)) == ["0", "1"]
    assert words("a:d=[1,2],b") == ["a:d=[1,2]", "b"]
    assert Method.parse("a:d=[1,2]").settings == {"d": [1, 2]}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"seeds": "0,0,1"}, "--seeds is '0,0,1' and names '0' twice"),
        ({"bundles": "dpmm,dino_ad,dpmm"}, "names 'dpmm' twice"),
        ({"backbones": ("a@8", "a@8")}, "names 'a@8' twice"),
        ({"seeds": ""}, "--seeds is ''; expected one or more"),
        ({"seeds": 1.5}, "--seeds is '1.5'; expected whole numbers"),
        ({"seeds": "-1"}, "--seeds is '-1'; expected whole numbers"),
        ({"epochs": 0}, "--epochs is 0; expected a whole number of at least 1"),
        ({"image_size": 0}, "--image_size is 0; expected"),
        ({"permutations": -1}, "--permutations is -1; expected"),
        ({"bundles": "dpmm,dino_ad:n_cluster=1"}, "did you mean --network_def#head#n_clusters?"),
        ({"bundles": "dpmm,spatial_ar:train_data#valid_fractio=0.3"}, "did you mean --train_data#valid_fraction?"),
        ({"bundles": "dpmm,anomaly_dino:rotation#s=1"}, "--rotation#s: the config has no rotation;"),
        ({"bundles": "dpmm:n_components=many"}, "--network_def#head#n_components: found 'many', expected a whole"),
        ({"bundles": "dpmm:train#trainer#max_epochs=0"}, "--train#trainer#max_epochs is 0; expected a whole"),
    ],
)
def test_nothing_is_run_for_options_that_mean_nothing(given, found, tmp_path):
    with pytest.raises(ValueError, match=re.escape(found)):
        compare(str(tmp_path), out=str(tmp_path / "out"), **given)


def test_labels_that_mark_anomalies_reach_all_lists_and_the_key_of_a_cell(tmp_path):
    keys = set()
    for labels in (None, [2], [1, 2]):
        cell = Cell(Method("dpmm"), BackboneSpec("dino_uad_tiny14", random=True), 0)
        settings = Settings("data", tmp_path, "cache", 56, "cpu", anomalous_labels=labels)
        parser = cell.parser("evaluate", settings)
        lists = [
            parser.get_parsed_content(f"{name}#anomalous_labels") for name in ("train_data", "val_data", "test_data")
        ]
        assert lists == [labels] * 3
        keys.add(cell.key(settings, "data", "weights"))
    assert len(keys) == 3


def test_a_fit_that_went_on_has_no_time(tmp_path):
    labelled_pictures(tmp_path / "data")
    cell = Cell(Method("dpmm"), BackboneSpec("dino_uad_tiny14", random=True), 0)
    settings = Settings(str(tmp_path / "data"), tmp_path, str(tmp_path / "cache"), 56, "cpu", 2)
    stopped = mock.patch("dino_uad.handlers.finish.calibrate", side_effect=KeyboardInterrupt)
    with stopped, pytest.raises(KeyboardInterrupt):
        fit(cell, settings, tmp_path / "cell")
    rest = fit(cell, settings, tmp_path / "cell")
    assert math.isnan(rest["fit_seconds"]) and math.isnan(rest["peak_memory_mb"])
    assert fit(cell, settings, tmp_path / "cell")["fit_seconds"] > 0


def test_rows_hold_mean_and_standard_deviation_over_seeds():
    cells = [
        {
            "method": "m",
            "backbone": "b",
            "seed": seed,
            "metrics": {"pixel_auroc": value, "pixel_aupr": float("nan")},
            "fit_seconds": 1.0,
            "head_seconds": 0.002,
            "model_mb": 1.0,
            "peak_memory_mb": 5.0,
        }
        for seed, value in enumerate([0.8, 0.9])
    ]
    (row,) = summarise(cells, {"b": 0.1})
    assert row["pixel_auroc"] == pytest.approx(0.85)
    assert row["pixel_auroc_std"] == pytest.approx(0.1 / 2**0.5)
    assert math.isnan(row["pixel_aupr"]) and math.isnan(row["pixel_aupr_std"]), "of images without masks"
    assert (row["head_ms"], row["backbone_ms"]) == pytest.approx((2.0, 100.0))


def test_tables_of_images_without_masks_leave_pixels_out(tmp_path):
    cells = [
        {"method": name, "backbone": "b", "seed": 0, "metrics": {"pixel_aupr": float("nan"), "image_auroc": value}}
        | {"fit_seconds": 1.0, "head_seconds": 0.002, "model_mb": 1.0, "peak_memory_mb": 5.0}
        for name, value in (("one", 0.8), ("other", 0.9))
    ]
    rows = summarise(cells, {"b": 0.1})
    test = {"auroc_difference": float("nan"), "aupr_difference": float("nan"), "patients": 2}
    facts = {"dataset": "d", "images": 2, "image_size": 56, "seeds": [0], "device": "cpu"}
    write_markdown({"facts": facts, "rows": rows, "paired_tests": [test]}, tmp_path / "compare.md")
    text = (tmp_path / "compare.md").read_text()
    assert "nan" not in text.lower() and "pixel AUPR" not in text and "Paired" not in text
    assert "0.8000" in text and "0.9000" in text
    write_plot(rows, tmp_path / "compare.png")
    assert (tmp_path / "compare.png").stat().st_size > 1000


def test_whole_comparison_on_pictures_and_its_resumption(tmp_path, capsys):
    labelled_pictures(tmp_path / "data")
    arguments = {
        "dataset_dir": str(tmp_path / "data"),
        "bundles": "dpmm:n_components=4,anomaly_dino",
        "backbones": "dino_uad_tiny14:random",
        "out": str(tmp_path / "out"),
        "image_size": 56,
        "epochs": 1,
        "permutations": 20,
        "device": "cpu",
    }
    result = compare(**arguments)
    names = [row["method"] for row in result["rows"]]
    assert names == ["dpmm n_components=4", "anomaly_dino", "mean_distance", "brightness", "intensity"]
    # The lesion of these pictures is a white square: intensity alone finds it.
    assert result["rows"][-1]["pixel_auroc"] == pytest.approx(1.0, abs=1e-6)
    # Any two on the backbone, and each of them with brightness.
    assert len(result["paired_tests"]) == 6 and all(test["patients"] == 4 for test in result["paired_tests"])
    assert {test["backbone"] for test in result["paired_tests"]} == {"dino_uad_tiny14 random weights"}
    for metric in ("auroc", "aupr"):
        ps = [(test[f"{metric}_p"], test[f"{metric}_p_holm"]) for test in result["paired_tests"]]
        assert all(p <= adjusted <= min(1, 6 * p) for p, adjusted in ps)
        assert min(ps)[1] == pytest.approx(min(1, 6 * min(ps)[0]))
    assert "| p | Holm |" in (tmp_path / "out" / "compare.md").read_text()
    assert "## 95 % intervals (patients drawn again 1000 times; seed 0)" in (tmp_path / "out/compare.md").read_text()
    for row in result["rows"]:
        for metric in ("pixel_auroc", "image_auroc"):
            if not math.isnan(row.get(f"{metric}_low", math.nan)):
                assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
    assert "pixel_auroc_low" in result["rows"][0] and "pixel_auroc_low" not in result["rows"][-1]
    marked = [key for key in result["rows"][0] if key.startswith("marked 5 %")]
    assert len(marked) == len(KINDS) and all(0 <= result["rows"][0][key] <= 1 for key in marked)
    assert "## Marked on normal test images" in (tmp_path / "out" / "compare.md").read_text()
    assert {"compare.md", "compare.csv", "compare.json", "compare.png"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    assert "| dpmm n_components=4 |" in capsys.readouterr().out
    cell = next((tmp_path / "out" / "cells").glob("anomaly_dino*/cell.json"))
    stored = json.loads(cell.read_text())
    cell.write_text(json.dumps(stored | {"fit_seconds": 123.0}))
    again = compare(**arguments)
    assert again["rows"][1]["fit_seconds"] == 123.0, "a finished cell is not run again"
    assert ["log_likelihood" in row for row in result["rows"]] == [True, False, False, False, False]
    assert result["rows"][0]["log_likelihood"] == pytest.approx(likelihood_of_the_model(tmp_path), abs=1e-3)


def likelihood_of_the_model(folder):
    """Of the normal validation images, by the model file of the DPMM in ``folder``."""
    (fitted,) = (folder / "out" / "cells").glob("dpmm*4_dino*/model.pt")
    parser = CELL.parser("train", settings(folder), fitted.parent)
    parser.get_parsed_content("network").load_state_dict(torch.load(fitted, weights_only=True))
    evaluator = parser.get_parsed_content("validate#evaluator")
    evaluator.run()
    return evaluator.state.metrics["val_log_likelihood"]


CELL = Cell(Method("dpmm", {"n_components": 4}), BackboneSpec("dino_uad_tiny14", random=True), 0)


def settings(folder, image_size=56, epochs=1):
    return Settings(str(folder / "data"), folder / "out", str(folder / "cache"), image_size, "cpu", epochs)


def key(folder, cell=CELL, weights="w", **changes):
    lists = [datalist(folder / "data", split) for split in ("train", "valid", "test")]
    return cell.key(settings(folder, **changes), data_key(lists), weights)


def test_a_cell_is_known_by_all_that_decides_its_numbers(tmp_path, monkeypatch):
    labelled_pictures(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "moved" / "data")
    original = key(tmp_path)
    assert key(tmp_path / "moved") == original, "where the files are decides nothing"
    others = [
        key(tmp_path, image_size=70),
        key(tmp_path, epochs=2),
        key(tmp_path, weights="others"),
        key(tmp_path, Cell(Method("dpmm", {"n_components": 5}), CELL.backbone, 0)),
        key(tmp_path, Cell(CELL.method, CELL.backbone, 1)),
    ]
    labelled_pictures(tmp_path / "moved" / "data", seed=1)  # other pixels, the same names
    others.append(key(tmp_path / "moved"))
    code = shutil.copytree(dino_uad.__path__[0], tmp_path / "code", ignore=shutil.ignore_patterns("*.safetensors"))
    with (code / "heads" / "dpmm" / "expectation.py").open("a") as source:
        source.write("# changed")
    monkeypatch.setattr(dino_uad, "__file__", str(code / "__init__.py"))
    monkeypatch.setattr(config, "digest_code", config.digest_code.__wrapped__)
    others.append(key(tmp_path))
    assert len({original, *others}) == 1 + len(others)


def test_a_cell_knows_the_code_of_what_is_not_this_packages(tmp_path, monkeypatch):
    labelled_pictures(tmp_path / "data")
    bundle = shutil.copytree(find_bundle("dpmm"), tmp_path / "mine", ignore=shutil.ignore_patterns("models", "eval"))
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "SIGN = {}\nclass Steps:\n    def __init__(self, *of, **more): self.of = SIGN\nclass Compose(Steps): pass\n"
    train = json.loads((bundle / "configs/train.json").read_text())
    places = {
        "head": lambda config: config["network_def"]["head"].update({"_target_": "my_parts.Steps"}),
        "metric": lambda config: config["validate"]["key_metric"].update(mine={"_target_": "my_parts.Steps"}),
        "transform": lambda config: config["train"]["preprocessing"].update({"_target_": "my_parts.Compose"}),
        "import": lambda config: config["imports"].append("$from my_parts import Steps"),
    }
    for put in places.values():
        config = json.loads(json.dumps(train))
        put(config)
        (bundle / "configs/train.json").write_text(json.dumps(config))
        keys = []
        for sign in (1, 1, -1):
            (tmp_path / "my_parts.py").write_text(code.format(sign))
            sys.modules.pop("my_parts", None)
            importlib.invalidate_caches()
            shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
            keys.append(key(tmp_path, Cell(Method(str(bundle), {}), CELL.backbone, 0)))
        assert keys[0] == keys[1] != keys[2]
    sys.modules.pop("my_parts", None)


def test_a_finished_cell_may_be_moved_and_has_no_number_that_json_lacks(tmp_path):
    result = {"method": "a", "seed": 0, "metrics": {"auroc": math.nan, "aupr": 0.5}, "log_likelihood": -math.inf}
    (tmp_path / "here").mkdir()
    write_cell(result, tmp_path / "here")
    refuse = mock.Mock(side_effect=AssertionError)
    stored = json.loads((tmp_path / "here/cell.json").read_text(), parse_constant=refuse)
    assert stored["metrics"] == {"auroc": None, "aupr": 0.5}
    assert str(tmp_path) not in (tmp_path / "here/cell.json").read_text()
    (tmp_path / "here").rename(tmp_path / "there")
    found = read_cell(tmp_path / "there")
    assert found["levels"] == str(tmp_path / "there/levels.pt")
    assert math.isnan(found["metrics"]["auroc"]) and math.isnan(found["log_likelihood"])
    assert (found["seed"], found["metrics"]["aupr"]) == (0, 0.5)


def test_a_moved_comparison_goes_on(cell, monkeypatch, tmp_path):
    """The paths that it was given first decide nothing."""
    out = shutil.copytree(cell.parents[1], tmp_path / "moved")
    (cell / "levels.pt").rename(cell / "elsewhere.pt")
    monkeypatch.setattr("dino_uad.compare.cell.fit", mock.Mock(side_effect=AssertionError("run again")))
    arguments = {"image_size": 56, "baselines": False, "device": "cpu", "out": str(out)}
    try:
        result = compare(str(cell.parents[2] / "data"), "anomaly_dino", "dino_uad_tiny14:random", **arguments)
    finally:
        (cell / "elsewhere.pt").rename(cell / "levels.pt")
    assert [row["method"] for row in result["rows"]] == ["anomaly_dino"]


def test_other_settings_in_the_same_folder_give_their_own_numbers(tmp_path):
    labelled_pictures(tmp_path / "data")
    arguments = {
        "dataset_dir": str(tmp_path / "data"), "bundles": "spatial_ar:hidden=4", "backbones": "dino_uad_tiny14:random",
        "epochs": 1, "baselines": False, "permutations": 0, "device": "cpu",
    }  # fmt: skip
    (small,) = compare(**arguments, out=str(tmp_path / "one"), image_size=56)["rows"]
    (large,) = compare(**arguments, out=str(tmp_path / "one"), image_size=70)["rows"]
    assert small["pixel_auroc"] != large["pixel_auroc"]
    more = {**arguments, "bundles": "anomaly_dino,spatial_ar:hidden=4"}
    _, alone = compare(**more, out=str(tmp_path / "two"), image_size=70)["rows"]
    same = ("pixel_auroc", "pixel_aupr", "pixel_aupro", "image_auroc")
    assert [alone[name] for name in same] == [large[name] for name in same], "it does not matter what ran before"


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """The folder of a cell, in one that also holds its ``data``: both anomalous images are slices of one patient."""
    folder = tmp_path_factory.mktemp("compare")
    labelled_pictures(folder / "data")
    for path in [*(folder / "data/test/Ungood").rglob("u?.png")]:
        path.rename(path.with_name(f"mia_slice{path.stem[1]}.png"))
    compare(
        str(folder / "data"), "anomaly_dino", "dino_uad_tiny14:random", out=str(folder / "out"), image_size=56,
        baselines=False, permutations=0, device="cpu",
    )  # fmt: skip
    return next((folder / "out" / "cells").iterdir())


def test_levels_of_a_cell_belong_to_the_patients_of_its_test_images(cell):
    counts = torch.load(cell / "levels.pt", weights_only=True)
    assert counts.shape[:2] == (3, 2)
    assert sorted(counts.sum(dim=(1, 2)).tolist()) == [56 * 56, 56 * 56, 2 * 56 * 56]
    assert counts[:, 1].sum() == 2 * 14 * 14


def test_a_cell_is_what_the_bundles_evaluation_measures(cell):
    folder = cell.parents[2]
    run(
        "anomaly_dino", folder, "evaluate", **{"ckpt_dir": str(cell), "network_def#head#coreset": None, "device": "cpu"}
    )
    expected = json.loads((folder / "evaluate" / "metrics.json").read_text())["metrics"]
    found = json.loads((cell / "cell.json").read_text())["metrics"]
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] is None} == {name for name in expected if expected[name] is None}
    defined = {name: value for name, value in expected.items() if value is not None}
    assert {name: found[name] for name in defined} == pytest.approx(defined, abs=5e-3)  # half-precision embeddings
