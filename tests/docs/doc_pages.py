"""What the tests of the documentation read out of a Markdown page."""

import re
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a language, in order."""
    return [code for name, code in FENCE.findall(page.read_text()) if name == language]


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text())
