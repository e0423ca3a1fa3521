"""The command line: verbs, wrong arguments, JSON, and a quick start."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from dino_uad.arguments import PreparedCall
from dino_uad.cli import VERBS, main, parse, resolve
from dino_uad.distill.recipe import Recipe
from dino_uad.kinds import admits


def test_without_arguments_lists_every_verb(capsys):
    main([])
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("weights", "cache")])
def test_every_verb_exists_and_documents_its_options(verb):
    function = resolve(VERBS[verb][0])
    parameters = [name for name in function.__annotations__ if name != "return"]
    assert parameters
    assert all(f"{name}:" in function.__doc__ or name == "overrides" for name in parameters), parameters


@pytest.mark.parametrize("words", [[verb] for verb in VERBS] + [["weights", "fetch"], ["cache", "prune"]], ids=" ".join)
def test_help_is_all_that_is_printed_and_says_nothing_of_how_the_command_line_is_made(words, capsys):
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    captured = capsys.readouterr()
    assert (end.value.code, captured.err) == (0, "")
    assert captured.out.startswith(f"NAME\n    dino-uad {' '.join(words)} - ")
    assert not re.search(r"FIRE|GROUP\b|:\w+:`|UnionType|'\w+ \|", captured.out)
    if words == ["distill"]:
        assert all(f"--{field.name}`" in captured.out for field in fields(Recipe))


def test_usage_of_a_verb_has_its_options_alone(capsys):
    with pytest.raises(SystemExit):
        main(["cache", "prune"])
    usage = capsys.readouterr().err
    assert "Usage: dino-uad cache prune CACHE_DIR <flags>\n  optional flags: " in usage
    assert "--days | --max_gb | --dry_run" in usage and "groups" not in usage


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["demo", "--seed", "-1"], "demo: --seed is -1; expected a whole number of at least 0"),
        (["check", "scans", "--seed", "-1"], "check: --seed is -1; expected a whole number of at least 0"),
        (["calibrate", "scans", "--device", "tpu"], "calibrate: --device is 'tpu'; expected cpu, cuda"),
        (["calibrate", "scans", "--num_workers", "-2"], "calibrate: --num_workers is -2; expected"),
    ],
)
def test_numbers_out_of_range_end_with_2_before_anything_is_read(words, found, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert found in capsys.readouterr().err


def test_the_demo_makes_no_data_for_no_epochs(tmp_path):
    with pytest.raises(ValueError, match="--epochs is 0; expected a whole number of at least 1"):
        main(["demo", "--epochs", "0", "--out", str(tmp_path / "demo")])
    assert not list(tmp_path.iterdir())


def test_unknown_verb_ends_with_2_and_names_the_known(capsys):
    with pytest.raises(SystemExit) as end:
        main(["trian"])
    assert end.value.code == 2
    assert "unknown verb 'trian'; known: demo" in capsys.readouterr().err


def test_unknown_option_is_refused_before_anything_runs(capsys):
    with pytest.raises(SystemExit) as end:
        main(["compare", "--dataset_dir", "x", "--bundlez", "dpmm"])
    assert end.value.code == 2
    assert "has no option --bundlez; its options: --dataset_dir, --bundles" in capsys.readouterr().err


def test_missing_argument_ends_with_2():
    with pytest.raises(SystemExit) as end:
        main(["compare"])
    assert end.value.code == 2


@pytest.fixture
def fake_demo(monkeypatch) -> list:
    """The arguments of every run of a verb ``demo`` that only prints, and starts a process that prints."""
    import dino_uad.demo.command

    calls = []

    def run_demo(out: str, epochs: int = 10, arch: str | None = None) -> dict:
        calls.append((out, epochs))
        print("working")
        subprocess.run(["echo", "a process too"])
        return {"out": out}

    monkeypatch.setattr(dino_uad.demo.command, "run_demo", run_demo)
    return calls


def test_json_is_all_that_reaches_standard_output(capfd, fake_demo):
    main(["demo", "--out", "here", "--json"])
    captured = capfd.readouterr()
    assert json.loads(captured.out) == {"out": "here"}
    assert captured.err == "working\na process too\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["here", "--epochs", "many"], "demo: --epochs: found 'many', expected a whole number"),
        (["here", "--epochs", "2.5"], "demo: --epochs: found 2.5, expected a whole number"),
        (["--out"], "demo: --out: found no value, expected text"),
        (["--out="], "demo: --out: found '', expected text"),
        ([""], "demo: --out: found '', expected text"),
        (["here", "3", "vit", "extra"], "Could not consume arg: extra"),
        (["here", "3", "vit", "function"], "Could not consume arg: function"),
    ],
)
def test_wrong_values_and_words_too_many_end_with_2_before_anything_runs(capfd, fake_demo, words, message):
    with pytest.raises(SystemExit) as end:
        main(["demo", *words])
    assert end.value.code == 2
    assert message in capfd.readouterr().err
    assert fake_demo == []


OPTIONS = [
    (verb, name, hint)
    for verb in VERBS
    if verb not in ("weights", "cache")
    for name, hint in get_type_hints(resolve(VERBS[verb][0])).items()
    if name not in ("return", "overrides") and hint not in (Any, str, str | None)
]


@pytest.mark.parametrize(("verb", "name", "hint"), OPTIONS, ids=lambda part: part if isinstance(part, str) else "")
def test_no_verb_takes_an_option_of_another_kind(capfd, verb, name, hint):
    """As fire parses what was typed: a dictionary, a list, text."""
    values = [value for value in ({"x": "y"}, ["x", [1]], "x") if not admits(hint, value)]
    assert values
    parameters = inspect.signature(resolve(VERBS[verb][0])).parameters.values()
    places = ["here" for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    for value in values:
        with pytest.raises(SystemExit) as end:
            main([verb, *places, f"--{name}={value}"])
        assert end.value.code == 2
        assert f"{verb}: --{name}: found {value!r}, expected " in capfd.readouterr().err


@pytest.mark.parametrize("name", ["2024", "1e5", "a,b", "case#7", "{x}", "[1]", "a=b", "p%d $x", "'q'"])
def test_folders_are_read_as_they_are_typed(fake_demo, name):
    main(["demo", name, "--epochs", "3"])
    assert fake_demo == [(name, 3)]


def test_a_tilde_is_the_home_folder_for_every_verb(fake_demo, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for words in (["~/x"], ["--out=~/x"], ["--out", "~"]):
        main(["demo", *words])
    places = [os.path.normpath(out) for out, _ in fake_demo]
    assert places == [str(tmp_path / "x"), str(tmp_path / "x"), str(tmp_path)]
    (tmp_path / "x").mkdir()
    main(["cache", "list", "~/x"])
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "nowhere.zip")):
        main(["import", "~/nowhere.zip"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "weights needs a command: list, fetch, path"),
        (["lst"], "Could not consume arg: lst"),
        (["list", "extra"], "Could not consume arg: extra"),
        (["path"], "no value for the required argument: name"),
    ],
)
def test_wrong_commands_of_weights_end_with_2(words, message, capfd):
    with pytest.raises(SystemExit) as end:
        main(["weights", *words])
    assert end.value.code == 2
    captured = capfd.readouterr()
    assert message in captured.err
    assert not captured.out


def test_weights_as_json(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("DINO_UAD_WEIGHTS", str(tmp_path))
    main(["weights", "list", "--json"])
    listed = json.loads(capfd.readouterr().out)
    assert listed["cache_folder"] == str(tmp_path)
    assert listed["weights"]["dinov2_vitb14"] == {"licence": "Apache-2.0", "path": None, "gated": False}
    assert listed["weights"]["dinov3_vits16"]["gated"]


@pytest.mark.parametrize("words", [[], ["--blocks", "{5:5,7:8}"], ["--steps", "40", "--learning_rate", "3e-5"]])
def test_options_of_distill_and_those_of_its_recipe_are_taken(words):
    assert isinstance(parse("distill", ["pictures", "student", *words]), PreparedCall)


def test_an_option_that_no_recipe_has_is_an_error():
    with pytest.raises(ValueError, match="no option --step; those of the recipe: --steps, --batch_size"):
        main(["distill", "pictures", "student", "--step", "40", "--precision", "bfloat16"])


def test_help_does_not_import_torch():
    code = "import sys; from dino_uad.cli import main; main([]); sys.exit(bool({'torch', 'monai'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_failure_is_one_message_with_status_1(tmp_path):
    line = [sys.executable, "-m", "dino_uad", "import", str(tmp_path / "no.zip"), "--out", str(tmp_path)]
    ended = subprocess.run(line, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ") and "Traceback" not in ended.stderr
    assert "Traceback" in subprocess.run([*line, "--debug"], capture_output=True, text=True).stderr


def test_ctrl_c_is_one_word_and_the_end_that_shells_expect():
    code = "from dino_uad.errors import short_tracebacks; short_tracebacks(); raise KeyboardInterrupt"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "interrupted\n")
