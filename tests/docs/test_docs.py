"""The documentation is true where a machine can tell: links, commands, options, verbs, versions."""

import ast
import functools
import importlib
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import monai.bundle
import pytest
from doc_pages import PAGES, ROOT, all_configs, command_lines, named, prose
from monai.bundle import ConfigParser

import dino_uad
from dino_uad.as_typed import parse_options
from dino_uad.backbones.architectures import ARCHITECTURES
from dino_uad.backbones.weights.commands import WeightCommands
from dino_uad.backbones.weights.registry import SOURCES
from dino_uad.cli import VERBS, resolve
from dino_uad.overrides import check_override

LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
COMMAND = re.compile(r"(?:python|torchrun)\b.*?-m (monai\.bundle|dino_uad) (.*)")


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """(module, words after it) of every command line of a page that runs MONAI's or our command line."""
    for line in command_lines(page):
        found = COMMAND.search(line)
        if found:
            yield found[1], shlex.split(re.sub(r"<[^>]*>", "PLACE", found[2]), comments=True)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path):
    for link in (first or second for first, second in LINK.findall(prose(page))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{named(page)} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{named(page)} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_monai_bundle_name_files_and_keys_that_exist(page: Path):
    for module, words in commands(page):
        if module != "monai.bundle":
            continue
        verb, options = words[0], parse_options(words[1:])
        function = getattr(monai.bundle, verb)
        root = page.parents[1] if "bundles" in page.relative_to(ROOT).parts else ROOT
        files = options.get("config_file", [])
        paths = [root / file for file in (files if isinstance(files, list) else [files])]
        assert all(path.is_file() for path in paths), f"{named(page)}: {words}"
        config = ConfigParser.load_config_files([str(path) for path in paths])
        if verb.endswith("_export"):  # without it MONAI builds the whole config, data included
            assert options["net_id"] in config
        for key, value in options.items():
            if key not in inspect.signature(function).parameters:
                check_override(key, value, config)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_dino_uad_name_verbs_and_options_that_exist(page: Path):
    for module, words in commands(page):
        if module != "dino_uad":
            continue
        assert words[0] in VERBS, f"{named(page)}: {words}"
        options = parse_options(words[1:])
        if "help" in options:
            continue
        verb = resolve(VERBS[words[0]][0])
        if verb is WeightCommands:
            assert hasattr(WeightCommands, words[1])
            assert all(name in SOURCES for name in words[2:])
            continue
        if isinstance(verb, type):
            verb, words = functools.partial(getattr(verb, words[1]), None), words[1:]
        positional = next((i for i, word in enumerate(words[1:]) if word.startswith("--")), len(words) - 1)
        inspect.signature(verb).bind(*["given"] * positional, **options)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_settings_in_the_text_exist_in_a_bundle(page: Path):
    """Inline code such as `--network_def#head#coreset 0.1` is a key of some bundle's configs."""
    for code in re.findall(r"`(--[\w#]+#\w[^`]*)`", prose(page)):
        if "…" in code or "#NAME" in code:
            continue
        for key, value in parse_options(shlex.split(code)).items():
            assert any(accepts(key, value, config) for config in all_configs()), code


def accepts(key: str, value: object, config: dict) -> bool:
    if value is True or str(value).isupper():  # named without a value, or with a placeholder
        value = "$a value"
    try:
        check_override(key, value, config)
    except ValueError:
        return False
    return True


def test_every_verb_is_described():
    headings = re.findall(r"^### `(\w+)`$", (ROOT / "common" / "docs" / "cli.md").read_text(), re.MULTILINE)
    assert headings == list(VERBS)


def test_every_backbone_is_described():
    text = (ROOT / "common" / "docs" / "backbones.md").read_text()
    for name in ARCHITECTURES:
        assert f"`{name}`" in text or f"`_{name.partition('_')[2]}`" in text, name


def test_every_argument_of_a_head_is_described():
    heads = {"dpmm": "DPMMHead", "spatial_ar": "SpatialARHead", "dino_ad": "DinoADHead"}
    for module, name in (heads | {"anomaly_dino": "AnomalyDinoHead"}).items():
        head = getattr(importlib.import_module(f"dino_uad.heads.{module}"), name)
        text = (ROOT / "common" / "docs" / "methods" / f"{module}.md").read_text()
        for argument in list(inspect.signature(head).parameters)[1:]:
            assert f"`{argument}`" in text, f"{module}.md does not describe {argument}"


def test_one_version_everywhere():
    version = dino_uad.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
    for path in (ROOT / "bundles").glob("*/configs/metadata.json"):
        assert json.loads(path.read_text())["version"] == version, path


def test_messages_in_troubleshooting_are_in_the_code():
    """The fixed parts of each quoted message are in one source file."""
    sources = [strings(path) for path in (ROOT / "common" / "dino_uad").rglob("*.py")]
    sources.append((ROOT / "Makefile").read_text())
    page = ROOT / "common" / "docs" / "troubleshooting.md"
    quoted = re.findall(r"^\| `([^`]*…[^`]*)`", page.read_text(), re.MULTILINE)
    monais = "Cannot locate class"
    example = re.compile(r"…|\b[NMXY]\b|'[^']*'|\[[^\]]*\]|\([^)]*\)|\d+|dino\w+")
    for message in (message for message in quoted if not message.startswith(monais)):
        parts = [part.strip(" ,;:()") for part in example.split(message)]
        fixed = [part for part in parts if len(part) > 3]
        assert any(all(part in source for part in fixed) for source in sources), message


def strings(path: Path) -> str:
    """All string constants of a module, those of an f-string joined as they stand."""
    tree = ast.parse(path.read_text())
    joined = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            joined.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            joined.append(node.value)
    return "\n".join(joined)
