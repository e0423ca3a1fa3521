"""What the documentation says of options and scripts: they exist, and have the values that it states."""

import ast
import dataclasses
import functools
import importlib
import inspect
import json
import re
import shlex
from fractions import Fraction
from pathlib import Path

import monai.bundle
import pytest
from doc_pages import PAGES, ROOT, all_configs, code_blocks, command_lines, named, prose

import dino_uad
from dino_uad.bench.all_rows import ROWS
from dino_uad.cli import VERBS, resolve
from dino_uad.distill.recipe import Recipe
from dino_uad.heads import GradientHead
from dino_uad.overrides import parse_options
from dino_uad.predictor import Prediction

DOCS = ROOT / "common" / "docs"
HEADS = {"dpmm": "DPMMHead", "spatial_ar": "SpatialARHead", "dino_ad": "DinoADHead", "anomaly_dino": "AnomalyDinoHead"}
OTHERS = {"host", "conf", "app", "studies", "nnodes", "shm", "args_file", "help"}
"""Options of MONAI Label, torchrun, docker and of every command."""


@functools.cache
def known_options() -> set[str]:
    """Top-level keys of the configs, and options of all verbs and of MONAI's commands."""
    known = {"json", *OTHERS, *(key for config in all_configs() for key in config)}
    for path in (ROOT / "bundles").glob("*/configs/multi_gpu_*.json"):
        known |= set(json.loads(path.read_text()))
    for verb in (resolve(target) for target, _ in VERBS.values()):
        commands = [value for key, value in vars(verb).items() if key[0] != "_"] if isinstance(verb, type) else [verb]
        known |= {name for command in commands for name in inspect.signature(command).parameters}
    known |= {field.name for field in dataclasses.fields(Recipe)}
    return known | set(inspect.signature(monai.bundle.run).parameters)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=named)
def test_options_in_the_text_are_options_of_something(page: Path):
    for code in re.findall(r"`([^`\n]*--\w[^`]*)`", prose(page)):
        for name in re.findall(r"(?<![\w-])--(\w+)(?![\w#])", "" if "pytest" in code else code):
            assert name in known_options(), f"{named(page)}: {code}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_shell_leaves_arguments_as_they_are_written(page: Path):
    """In double quotes it would put the empty text in the place of ``$torch``."""
    for code in [*command_lines(page), *re.findall(r"`([^`\n]+)`", prose(page))]:
        assert not re.search(r'(?<!\\)"[^"]*\$\w[^"]*"', code), f"{named(page)}: {code}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_and_targets_of_other_commands_exist(page: Path):
    targets = re.findall(r"^([.\w/-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    inline = re.findall(r"`((?:make|python|pip|\.venv/bin/python) [^`]+)`", prose(page))
    for line in [*command_lines(page), *inline]:
        words = shlex.split(re.sub(r"<[^>]*>", "PLACE", line), comments=True)
        if words and words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= {*targets, ".venv-monailabel/.ready"}, line
        for word in words:
            if re.match(r"requirements.*\.txt$", word) or re.match(r"(tests|common)/.*\.py$", word):
                assert (ROOT / word).is_file(), f"{named(page)}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_a_command_needs_beside_the_requirements_is_told(page: Path):
    """torch's ONNX exporter imports onnxscript, MONAI's tracking mlflow; neither is in ``requirements.txt``."""
    text = page.read_text()
    for used, needed in {
        " onnx_export ": "pip install onnxscript",
        "--tracking mlflow": "requirements-mlflow.txt",
    }.items():
        assert used not in text or needed in text or page.name == "CHANGELOG.md", (
            f"{named(page)}: {used} needs {needed}"
        )


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_recipes_are_called_as_they_can_be(page: Path):
    for line in command_lines(page):
        script = re.search(r"python (common/recipes/\w+\.py) (.*)", line)
        if script:
            recipe_signature(ROOT / script[1]).bind(*positional(script[2]), **flat(script[2]))


@pytest.mark.parametrize("path", sorted((ROOT / "common" / "recipes").glob("*.py")), ids=lambda path: path.stem)
def test_recipes_are_called_as_they_say(path: Path):
    said = ast.get_docstring(ast.parse(path.read_text()))
    lines = re.findall(rf"^ *python common/recipes/{path.name} (.*)$", said, re.MULTILINE)
    assert lines
    for line in lines:
        recipe_signature(path).bind(*positional(line), **flat(line))


def positional(line: str) -> list[str]:
    words = shlex.split(line)
    return words[: next((i for i, word in enumerate(words) if word.startswith("--")), len(words))]


def flat(line: str) -> dict[str, object]:
    return parse_options(shlex.split(line))


def recipe_signature(path: Path) -> inspect.Signature:
    """The signature of the function that a script gives to fire, read without running the script."""
    tree = ast.parse(path.read_text())
    (name,) = re.findall(r"fire\.Fire\((\w+)\)", path.read_text())
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    namespace: dict = {}
    blank = ast.FunctionDef(name, function.args, [ast.Pass()], [])
    module = ast.Module([ast.parse("from __future__ import annotations").body[0], blank], [])
    exec(compile(ast.fix_missing_locations(module), path.name, "exec"), namespace)
    return inspect.signature(namespace[name])


@pytest.mark.parametrize("method", HEADS)
def test_values_of_a_methods_options_are_the_bundles(method: str):
    """The second column of the table of options: as the bundle sets it, or the head does."""
    head = getattr(importlib.import_module(f"dino_uad.heads.{method}"), HEADS[method])
    config = json.loads((ROOT / "bundles" / method / "configs" / "train.json").read_text())["network_def"]["head"]
    values = {name: parameter.default for name, parameter in inspect.signature(head).parameters.items()} | config
    table = prose(DOCS / "methods" / f"{method}.md").partition("\n## Options")[2]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", table, re.MULTILINE)
    assert rows
    for names, said in rows:
        names = re.findall(r"`(\w+)`", names)
        for name, text in zip(names, [said] if len(names) == 1 else said.split(", "), strict=True):
            if "bundle's is" not in text:  # a formula
                assert stated(text) == shown(values[name]), f"{method}.md: {name}"


def stated(text: str) -> object:
    """What a cell says; what stands in brackets explains it."""
    text = text.partition(" (")[0].strip("` ")
    if text == "the run's":
        return "@seed"
    if re.fullmatch(r"\d+/\d+", text):
        return float(Fraction(text))
    try:
        return json.loads(text)
    except ValueError:
        return None if text == "none" else text


def shown(value: object) -> object:
    """A config's value as pages write it: an expression such as ``$8 if @rotations else 1`` is what it is by itself."""
    if isinstance(value, str) and value.startswith("$"):
        return json.loads(value.rpartition(" else ")[2])
    return list(value) if isinstance(value, tuple) else None if value == "none" else value


def test_choices_of_the_label_map_are_those_of_inference():
    """The pages name the value that each option has where nothing is said; MONAI Label's names all that it may have."""
    (found,) = {
        json.dumps(config["displayable_configs"]) for config in all_configs() if "displayable_configs" in config
    }
    choices = {name: value if isinstance(value, list) else [value] for name, value in json.loads(found).items()}
    texts = {page: prose(DOCS / page) for page in ("cli.md", "worklist.md", "monai_label.md")}
    for name, values in choices.items():
        assert all(f"{name}`" in texts[page] for page in ("cli.md", "monai_label.md")), name
        for text in (text for text in texts.values() if f"{name}`" in text):
            (row,) = re.findall(rf"^\|.*[`#]{name}`.*$", text, re.MULTILINE)
            assert f"{values[0]:g}" in row if name == "smoothing" else f"`{values[0]}`" in row, row
    rate = re.search(r"^\| `false_positive_rate` \| ([^|]+) \|", texts["monai_label.md"], re.MULTILINE)[1]
    assert rate == ", ".join(f"`{value}`" for value in choices["false_positive_rate"])


def test_every_row_of_the_benchmark_is_described():
    table = prose(DOCS / "benchmarks.md").partition("\n## Rows")[2].partition("\n## ")[0]
    told = [
        name for cell in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    ]
    assert sorted(told) == sorted(ROWS)


def test_what_a_head_may_have_is_what_heads_have():
    table = (DOCS / "extending.md").read_text().partition("## What a head has to do")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    for name in re.findall(r"`(\w+)", "\n".join(cells)):
        assert hasattr(GradientHead, name) or name in inspect.getsource(GradientHead), name


def test_snippets_of_python_use_what_there_is():
    page = DOCS / "python.md"
    fields = {field.name for field in dataclasses.fields(Prediction)} | set(dir(Prediction))
    for block in code_blocks(page, "python"):
        ast.parse(block)
        assert set(re.findall(r"\bresult\.(\w+)", block)) <= fields
        assert all(hasattr(dino_uad, name) for name in re.findall(r"\bdino_uad\.(\w+)", block))
