"""What may replace a value of a config on the command line."""

from functools import partial
from pathlib import Path

import monai.bundle
import pytest
from monai.bundle import ConfigParser

from dino_uad.as_typed import PLACES, parse_options, read_as_typed
from dino_uad.errors import explain
from dino_uad.overrides import check_override, put_overrides
from dino_uad.transforms import ThresholdMapd

CONFIG = {"displayable_configs": {"false_positive_rate": ["5 %", "1 %"], "min_size": "0"}, "image_size": [448, 448]}


@pytest.mark.parametrize("value", ["1 %", "0.05", 0.05, ["1 %"]])
def test_an_entry_of_a_drop_down_is_given_as_its_reader_knows_it(value):
    check_override("displayable_configs#false_positive_rate", value, CONFIG)
    assert ThresholdMapd("pred", "model.pt", value).point in (0.05, 0.01)


def test_text_given_in_python_stays_as_it_is(tmp_path):
    parser = ConfigParser({"cache_dir": None, "pattern": "*", "side": 1})
    put_overrides(parser, {"cache_dir": "~/case#7", "pattern": "#1_*", "side": "$2 + 3"}, tmp_path)
    assert [parser.get_parsed_content(key) for key in ("cache_dir", "pattern", "side")] == ["~/case#7", "#1_*", 5]


def test_a_list_of_numbers_is_not_replaced_by_one():
    with pytest.raises(ValueError, match=r"--image_size: found 224, expected a list such as \[448, 448\]"):
        check_override("image_size", 224, CONFIG)


@pytest.mark.parametrize(
    ("point", "grow", "expected"),
    [
        ("5 %", "1 in 4 normal scans", (5.0, 2.0)),
        ("1 in 4 normal scans", "5 %", (2.0, 2.0)),
        ("5 %", "1 %", (5.0, 5.0)),
    ],
)
def test_findings_grow_down_to_any_operating_point(monkeypatch, point, grow, expected):
    thresholds = {0.05: 5.0, 0.01: 9.0, "1 in 4 normal scans": 2.0}
    monkeypatch.setattr("dino_uad.transforms.threshold.read_threshold", lambda model, key: thresholds[key])
    assert ThresholdMapd("pred", "model.pt", point, grow).thresholds == expected


@pytest.mark.parametrize("as_option", [False, True])
def test_a_tilde_is_the_home_folder_for_every_folder(as_option, tmp_path, monkeypatch):
    """In a config, and behind ``=`` or in quotes, where the shell does not see it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    typed = {key: f"~/{key}" for key in PLACES}
    program = str(Path(monai.bundle.__file__).with_name("__main__.py"))
    monkeypatch.setattr("sys.argv", [program, "run", *(f"--{key}={value}" for key, value in typed.items())])
    parser = ConfigParser(
        {
            **(dict.fromkeys(PLACES, "unset") if as_option else typed),
            "other": "~/other",
            "initialize": [{"_target_": "dino_uad.overrides.check_overrides"}],
            "below": {key: f"$@{key} + '/below'" for key in PLACES},
        }
    )
    if as_option:
        monkeypatch.setattr("dino_uad.overrides._check_options", lambda argv: None)
    else:
        monkeypatch.setattr("sys.argv", ["notebook"])
    parser.get_parsed_content("initialize")
    assert parser.get_parsed_content("below") == {key: str(tmp_path / key / "below") for key in PLACES}
    assert parser.get_parsed_content("other") == "~/other"


TYPED = [
    *("0", "2_0,1_0", "2024", "1e5", "0x10", "True", "{x}", "(.*)", "[0-9]*", "grade0,grade1"),
]


@pytest.mark.parametrize("text", TYPED)
@pytest.mark.parametrize("name", ["normal", "pattern", "mask_pattern", "group_pattern", "series"])
def test_texts_of_data_lists_are_read_as_they_are_typed(name, text):
    """As MONAI's run does: python-fire's value is in the config when the step that corrects it is resolved."""
    if (name, text[0]) == ("normal", "["):
        pytest.skip("a list of texts is given so")
    tokens = [f"--train_data#{name}", text, f"--infer_data#{name}={text}", "--dataset_dir", "2024", "--max_epochs", "3"]
    parser = ConfigParser(
        {
            "dataset_dir": "x",
            "max_epochs": 1,
            "train_data": {"_target_": "builtins.dict", "dataset_dir": "@dataset_dir", name: None},
            "val_data": {"_target_": "builtins.dict", name: f"@train_data#{name}"},
            "infer_data": {"_target_": "builtins.dict"},
            "initialize": [{"_target_": partial(read_as_typed, tokens)}],
        }
    )
    for key, value in parse_options(tokens).items():
        parser[key] = value
    parser.get_parsed_content("initialize")
    assert parser.get_parsed_content("train_data") == {"dataset_dir": "2024", name: text}
    assert parser.get_parsed_content("val_data") == parser.get_parsed_content("infer_data") == {name: text}
    assert parser.get_parsed_content("max_epochs") == 3


def test_none_quoted_texts_lists_and_expressions_stay_what_they_are():
    values = {"normal": "['a', 'b']", "pattern": "'7'", "mask_pattern": "None", "series": "$'a' + 'b'"}
    tokens = [word for key, text in values.items() for word in (f"--train_data#{key}", text)]
    initialize = [{"_target_": partial(read_as_typed, tokens)}]
    parser = ConfigParser({"train_data": {"_target_": "builtins.dict"}, "initialize": initialize})
    for key, value in parse_options(tokens).items():
        parser[key] = value
    parser.get_parsed_content("initialize")
    expected = {"normal": ["a", "b"], "pattern": "7", "mask_pattern": None, "series": "ab"}
    assert parser.get_parsed_content("train_data") == expected


def test_none_replaces_what_the_config_says():
    """MONAI's run leaves a None out: no option of it reaches the config."""
    keys = ("slices#preset", "head#retrieve", "max_steps", "steps#1", "meta_file")
    tokens = [f"--{key}=None" for key in keys]
    parser = ConfigParser(
        {
            "slices": {"preset": "$'brats' + '_flair'"},
            "head": {"_target_": "builtins.dict", "retrieve": 20, "steps": "@max_steps"},
            "max_steps": 600,
            "steps": ["$1", {"_target_": "builtins.dict"}],
            "network": {"_target_": "builtins.dict", "head": "@head", "preset": "@slices#preset"},
            "initialize": [{"_target_": partial(read_as_typed, tokens)}],
        }
    )
    parser.get_parsed_content("initialize")
    head = {"retrieve": None, "steps": None}
    assert parser.get_parsed_content("network") == {"head": head, "preset": None}
    assert parser.get_parsed_content("steps") == [1, None]
    assert parser.get_parsed_content("slices") == {"preset": None} and "meta_file" not in parser.config


def test_the_message_is_of_the_innermost_error_that_says_something():
    class Silent(Exception):
        pass

    try:
        try:
            raise Silent
        except Silent as error:
            raise KeyError("no such package") from error
    except KeyError as error:
        assert explain(error) == "KeyError: 'no such package'"
