"""What the tests of the documentation read out of a Markdown page, and the configs that it is compared with."""

import functools
import re
from pathlib import Path

from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "common" / "docs").rglob("*.md")),
    *sorted((ROOT / "bundles").glob("*/docs/README.md")),
    *sorted((ROOT / "common" / "dino_uad").rglob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a language, in order."""
    return [code for name, code in FENCE.findall(page.read_text()) if name == language]


def command_lines(page: Path) -> list[str]:
    """The command lines of a page, each in one piece."""
    return [line for block in code_blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines() if line]


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text())


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@functools.cache
def all_configs() -> list[dict]:
    """What the four bundles' training, evaluation and inference are configured by."""
    folders = sorted((ROOT / "bundles").glob("*/configs"))
    runs = [("train.json",), ("train.json", "evaluate.json"), ("inference.json",)]
    return [ConfigParser.load_config_files([str(folder / name) for name in run]) for folder in folders for run in runs]
