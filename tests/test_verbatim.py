"""Text that MONAI's config language would read as its own arrives as it was given."""

import json
from functools import partial
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

import workflows
from dino_uad.as_typed import PLACES, read_as_typed
from dino_uad.verbatim import as_override, verbatim

TEXTS = [
    *("plain", "a#b", "a##b", "$HOME/x", "@seed", "%41", "x@#y", "x%#y", "it's #1", 'say "#"', "a\\#b", "a\\", "a::b#"),
    *("@a#b@c", "$1 + @seed", "a\nb#", "ü日😀#", "caf\udce9#", "$import os"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_config_gives_back_what_is_put_in_verbatim(text):
    parser = ConfigParser({"seed": 3, "place": verbatim(text), "nested": [{"below": "$@place + '/x'"}]})
    assert parser.get_parsed_content("place") == text
    assert parser.get_parsed_content("nested#0#below") == text + "/x"


def test_an_override_in_python_stays_an_expression():
    parser = ConfigParser({"a": as_override("$1 + 1"), "b": as_override("case#*"), "c": as_override(3)})
    assert [parser.get_parsed_content(key) for key in "abc"] == [2, "case#*", 3]


def config(**content) -> ConfigParser:
    """A config that runs: its first step reads again what a command line says."""
    tokens = content.pop("tokens", [])
    initialize = [{"_target_": partial(read_as_typed, tokens)}]
    return ConfigParser({"seed": 3, "below": "$@dataset_dir + '/x'", **content, "initialize": initialize})


def test_a_file_of_arguments_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "arguments.json"
    written = {"dataset_dir": "data #1", "output_dir": "out #2", "train_data#pattern": "case#*", "seed": 4}
    path.write_text(json.dumps(written))
    tokens = ["--args_file", str(path), "--output_dir", "typed #3"]
    parser = config(dataset_dir="", output_dir="", train_data={"pattern": "*"}, tokens=tokens)
    parser.update(written)
    parser.get_parsed_content("initialize")
    found = [parser.get_parsed_content(key) for key in ("below", "output_dir", "train_data#pattern", "seed")]
    assert found == ["data #1/x", "typed #3", "case#*", 4]


@pytest.mark.parametrize("key", PLACES)
def test_a_folder_that_the_parser_has_changed_is_refused_by_name(key):
    parser = config(**{"dataset_dir": "data", key: "/data/study #1"})
    with pytest.raises(RuntimeError) as raised:
        parser.get_parsed_content("initialize")
    assert str(raised.value.__cause__).startswith(f"--{key}: found '/data/study ::1'; MONAI's configs read '#' as '::'")


@pytest.mark.parametrize("text", ["$HOME/data", "@data", "@seed"])
def test_a_folder_that_the_parser_takes_for_an_expression_is_refused_by_name(text):
    parser = config(dataset_dir=text, tokens=["--dataset_dir", text])
    with pytest.raises(RuntimeError) as raised:
        parser.get_parsed_content("initialize")
    said = str(raised.value.__cause__)
    assert said.startswith(f"--dataset_dir: found {text!r}, which MONAI reads as an") and f"'./{text}'" in said


def test_expressions_and_doubled_colons_that_were_meant_stay():
    tokens = ["--dataset_dir", "$'a' + 'b'", "--output_dir", "a::b"]
    parser = config(dataset_dir=tokens[1], output_dir=tokens[3], tokens=tokens)
    parser.get_parsed_content("initialize")
    assert [parser.get_parsed_content(key) for key in ("below", "output_dir")] == ["ab/x", "a::b"]


def test_a_folder_with_a_number_sign_is_fitted_scored_and_calibrated_in(tmp_path, monkeypatch):
    """In the config as in Python; a scan that is called like an expression is a scan."""
    from dino_uad import load
    from dino_uad.calibrate import calibrate

    folder = tmp_path / "study #1"
    places = {key: verbatim(str(folder / key)) for key in ("ckpt_dir", "output_dir", "cache_dir")}
    workflows.labelled_pictures(folder / "data")
    workflows.run("dpmm", folder, dataset_dir=verbatim(str(folder / "data")), **places)
    assert [path.name for path in tmp_path.iterdir()] == ["study #1"]
    model = folder / "ckpt_dir" / "model.pt"
    small = {**workflows.TINY, **workflows.METHODS["dpmm"]}
    detector = load("dpmm", model_file=str(model), **{key.replace("#", "__"): small[key] for key in small})
    assert detector(folder / "data/test/Ungood/img/u0.png").anomaly_map.shape == (56, 56)
    site = folder / "site"
    site.mkdir()
    monkeypatch.chdir(tmp_path)
    names = ("$open('run', 'w')", "@seed", "%seed", "scan#4")
    for name, path in zip(names, sorted((folder / "data").rglob("[tg]*.png")), strict=False):
        (site / f"{name}.png").write_bytes(path.read_bytes() + b"\0")
    small.pop("image_size")
    result = calibrate(str(site), "dpmm", str(model), cache_dir=str(folder / "cache_dir"), on_error="raise", **small)
    assert result["scans"] == result["groups"] == len(names) and not Path("run").exists()
