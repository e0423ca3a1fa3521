"""Text as MONAI's config language must be given it, so that a path or a name arrives as it is.

That language reads every text of a config: ``#`` becomes ``::``, and one that begins with ``$``, ``@`` or ``%`` is an
expression, a reference or a macro.
"""

from __future__ import annotations

import re
from typing import Any

EXPRESSION = ("$", "@", "%")


def verbatim(text: str) -> str:
    """What a config is given so that its parser makes ``text`` of it again: for what others chose, such as a path."""
    if "#" not in text and not text.startswith(EXPRESSION):
        return text
    return "$" + re.sub("[#@%]", lambda sign: f"\\x{ord(sign[0]):02x}", repr(text))


def as_override(value: Any) -> Any:
    """An override given in Python: what begins like an expression stays one, other text stays as it is."""
    return verbatim(value) if isinstance(value, str) and not value.startswith(EXPRESSION) else value
