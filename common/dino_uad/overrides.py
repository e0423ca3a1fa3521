"""Overrides on the command line of ``monai.bundle run``, checked against the config before any work starts.

MONAI adds a key that it does not know to the config without a word: ``--max_epoch 5`` would train for 40 epochs. A None
it leaves out: ``--slices#preset None`` would keep the preset.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from dino_uad.config_keys import EXPRESSION, PLACES, check_override, expand_folder
from dino_uad.settings import require_count

TEXTS = ("normal", "pattern", "mask_pattern", "image_pattern", "group_pattern", "series", "kind")
"""Options of data lists."""


def check_overrides(argv: Sequence[str] | None = None) -> None:
    """Refuse unknown keys and values of another kind than the config's; read names and patterns as they were typed.

    A ``~`` in front of a folder is the home folder, wherever it comes from: a shell does not see it behind ``=``, in
    quotes, or in a config.

    Args:
        argv: command line of a process; this one's when None. Anything but ``monai.bundle run`` is not looked at.

    Raises:
        ValueError: the message names the key, what was given, and the key or kind of value that was expected.
    """
    argv = sys.argv if argv is None else argv
    is_run = Path(argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py") and "run" in argv[1:2]
    if is_run:
        _check_options(argv)
    read_as_typed(argv[2:] if is_run else [])


def _check_options(argv: Sequence[str]) -> None:
    from monai.bundle import ConfigParser

    options = parse_options(argv[2:])
    if "args_file" in options:  # MONAI's file of arguments, which those of the command line go before
        options = {**ConfigParser.load_config_file(options["args_file"]), **options}
    config = ConfigParser.load_config_files(options.get("config_file", {}))
    for key, value in options.items():
        if key not in _run_parameters():
            check_override(key.lstrip("+~"), value, config)


def _run_parameters() -> Collection[str]:
    """Options of MONAI's command itself."""
    import monai.bundle

    return inspect.signature(monai.bundle.run).parameters


def check_numbers(max_epochs: int, val_interval: int, num_workers: int, seed: int) -> None:
    """Refuse numbers that torch, ignite or numpy would refuse later, without saying which setting they come from.

    Raises:
        ValueError: the message names the setting, what was found and what was expected.
    """
    smallest = {"max_epochs": 1, "val_interval": 1, "num_workers": 0, "seed": 0}
    found = {"max_epochs": max_epochs, "val_interval": val_interval, "num_workers": num_workers, "seed": seed}
    for name, value in found.items():
        require_count(name, value, smallest[name])


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


def read_as_typed(tokens: Sequence[str]) -> None:
    """Undo what python-fire made of text: it reads ``2024`` as a number, ``1_0`` as 10, and ``case#7`` as ``case``.

    And what MONAI's ``run`` makes of None: nothing, the config's own value stays.

    The config that runs is that of the parser which is resolving the ``initialize`` step that led here.

    Args:
        tokens: the options of the command line.
    """
    from monai.bundle import ConfigParser

    frame = inspect.currentframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), ConfigParser):
        frame = frame.f_back
    if frame is None:
        return
    parser = frame.f_locals["self"]
    for key, text in option_words(tokens):
        if text == "None" and key not in _run_parameters():
            _set(parser, key.lstrip("+~"), None)
        elif text and _is_text(key, text):
            _set(parser, key, text)
    for key in PLACES:
        value = parser.config.get(key)
        if (expanded := expand_folder(key, value)) != value:
            _set(parser, key, expanded)


def _is_text(key: str, text: str) -> bool:
    """Whether a value is text, and not a list of texts, None, an expression, or in quotes, which are taken off."""
    *parents, name = key.split("#")
    if text == "None" or text[0] in (*EXPRESSION, "'", '"') or (name == "normal" and text[0] == "["):
        return False
    return name in PLACES if not parents else name in TEXTS and parents[-1].endswith("_data")


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
