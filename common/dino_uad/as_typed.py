"""What was typed, or a file of arguments says, as it was typed: python-fire and MONAI's config language change text."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Collection, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from dino_uad.verbatim import EXPRESSION

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

PLACES = ("dataset_dir", "output_dir", "ckpt_dir", "model_file", "cache_dir", "bundle_root")
TEXTS = ("normal", "pattern", "mask_pattern", "image_pattern", "group_pattern", "series", "kind")
"""Options of data lists."""


def run_parameters() -> Collection[str]:
    """Options of MONAI's commands themselves."""
    import monai.bundle

    workflow = inspect.signature(monai.bundle.ConfigWorkflow).parameters
    return {*inspect.signature(monai.bundle.run).parameters, *workflow, "workflow_name"} - {"override"}


def expand_folder(key: str, value: Any) -> Any:
    """The value of a config key, a path as text, with ``~`` in front of it replaced by the home folder."""
    return os.path.expanduser(value) if key in PLACES and isinstance(value, str | os.PathLike) else value


def parse_options(tokens: Sequence[str]) -> dict[str, Any]:
    """``--key value`` and ``--key=value``, parsed as python-fire does; a key without a value is True."""
    from fire.parser import DefaultParseValue

    return {key: True if text is None else DefaultParseValue(text) for key, text in option_words(tokens)}


def option_words(tokens: Sequence[str]) -> list[tuple[str, str | None]]:
    """The options of a command line with the text of their values; None for a key without a value."""
    options: list[tuple[str, str | None]] = []
    open_key = False
    for token in tokens:
        flag = re.match(r"--?([^\W\d][^=]*)(?:=(.*))?$", token, re.DOTALL)
        if flag:
            options.append((flag[1].replace("-", "_"), flag[2]))
            open_key = flag[2] is None
        elif open_key:
            options[-1] = (options[-1][0], token)
            open_key = False
    return options


def running_config() -> ConfigParser | None:
    """The config that runs: that of the parser which is resolving the ``initialize`` step that led here."""
    from monai.bundle import ConfigParser

    frame = inspect.currentframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), ConfigParser):
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"]


def read_as_typed(tokens: Sequence[str]) -> None:
    """Undo what python-fire made of text: it reads ``2024`` as a number, ``1_0`` as 10, and ``case#7`` as ``case``.

    And what MONAI makes of it: None is left out, the config's own value stays, and ``#`` becomes ``::``, of a file of
    arguments, too.

    Args:
        tokens: the options of the command line.

    Raises:
        ValueError: a folder that is none, or is not known as it was written.
    """
    parser = running_config()
    if parser is None:
        return
    typed = dict(option_words(tokens))
    given = {**(parser.load_config_file(typed["args_file"]) if typed.get("args_file") else {}), **typed}
    for key, text in given.items():
        if text == "None" and key in typed and key not in run_parameters():
            _set(parser, key.lstrip("+~"), None)
        elif text and isinstance(text, str) and _is_text(key, text):
            _set(parser, key, text)
    for key in PLACES:
        value = parser.config.get(key)
        if value is not None and not isinstance(value, str | os.PathLike):
            raise ValueError(f"--{key}: found {value!r}, expected a path")
        if (expanded := expand_folder(key, value)) is not value:
            _set(parser, key, expanded)
    for key in PLACES:
        _require_place(parser, key, given.get(key))


def _require_place(parser: Any, key: str, text: Any) -> None:
    """Raise ValueError where a folder is another than was written, and would be looked for or made under that name."""
    value = parser.config.get(key)
    if not isinstance(value, str):
        return
    if value.startswith(EXPRESSION) and text is not None:
        try:
            found = parser.get_parsed_content(key)
        except Exception as error:  # an expression may raise anything
            found = error.__cause__ or error
        if not isinstance(found, str | os.PathLike):
            raise ValueError(
                f"--{key}: found {value!r}, which MONAI reads as an expression or reference: {found!r}; expected a "
                f"path. A folder of that name is './{value}'"
            )
    elif "::" in value and value[0] not in EXPRESSION and text != value:
        raise ValueError(
            f"--{key}: found {value!r}; MONAI's configs read '#' as '::'. Give it on the command line of monai.bundle "
            "run, or in Python as dino_uad.verbatim.verbatim(path)"
        )


def _is_text(key: str, text: str) -> bool:
    """Whether a value is text, and not a list of texts, None, an expression, or in quotes, which are taken off."""
    *parents, name = key.split("#")
    if text == "None" or text[0] in (*EXPRESSION, "'", '"') or (name == "normal" and text[0] == "["):
        return False
    in_data = name in TEXTS and bool(parents) and parents[-1].endswith("_data")
    return in_data or (name == "weights" if parents else name in PLACES)


def _set(parser: Any, key: str, text: str | None) -> None:
    """Replace a value in a config that is parsed already, in the node that holds it and where it is referred to."""
    *parents, name = key.split("#")
    node = parser.config
    for parent in parents:
        node = node[int(parent)] if isinstance(node, list) else node.get(parent) if isinstance(node, dict) else None
    _put(node, name, text)
    resolver = parser.ref_resolver
    own = resolver.normalize_id(key)
    resolver.resolved_content[own] = text
    if own in resolver.items:
        resolver.items[own].update_config(text)
    if parents and (holder := resolver.items.get(resolver.normalize_id("#".join(parents)))) is not None:
        holder.update_config(_put(copy(holder.get_config()), name, text))


def _put(node: Any, name: str, text: str | None) -> Any:
    """Replace an entry of a dictionary or list; the same node."""
    if isinstance(node, dict | list):
        node[int(name) if isinstance(node, list) else name] = text
    return node
