"""The command line: verbs, wrong arguments, JSON, and a quick start."""

import json
import subprocess
import sys

import pytest

from dino_uad.cli import VERBS, main, resolve


def test_without_arguments_lists_every_verb(capsys):
    main([])
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "weights"])
def test_every_verb_exists_and_documents_its_options(verb):
    function = resolve(VERBS[verb][0])
    parameters = [name for name in function.__annotations__ if name != "return"]
    assert parameters
    assert all(f"{name}:" in function.__doc__ or name == "overrides" for name in parameters), parameters


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


def test_json_is_all_that_reaches_standard_output(tmp_path, capsys, monkeypatch):
    import dino_uad.demo

    def fake(out: str) -> dict:
        print("working")
        return {"out": out}

    monkeypatch.setattr(dino_uad.demo, "run_demo", fake)
    main(["demo", "--out", "here", "--json"])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"out": "here"}
    assert "working" in captured.err


def test_help_does_not_import_torch():
    code = "import sys; from dino_uad.cli import main; main([]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_failure_is_one_message_with_status_1(tmp_path):
    line = [sys.executable, "-m", "dino_uad", "import", str(tmp_path / "no.zip"), "--out", str(tmp_path)]
    ended = subprocess.run(line, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ") and "Traceback" not in ended.stderr
    assert "Traceback" in subprocess.run([*line, "--debug"], capture_output=True, text=True).stderr
