"""Overrides on the command line of ``monai.bundle run``, checked against the config before any work starts.

MONAI adds a key that it does not know to the config without a word: ``--max_epoch 5`` would train for 40 epochs. A None
it leaves out: ``--slices#preset None`` would keep the preset.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from pydoc import locate
from typing import TYPE_CHECKING, Any, NoReturn

from dino_uad.as_typed import PLACES, parse_options, read_as_typed, run_parameters, running_config
from dino_uad.kinds import admits, hint_of, in_words, parameters_of
from dino_uad.verbatim import EXPRESSION, as_override
from dino_uad.whole_config import check_config

if TYPE_CHECKING:
    from monai.bundle import ConfigParser


def check_overrides(argv: Sequence[str] | None = None) -> None:
    """Refuse unknown keys and values of another kind than the config's; read names and patterns as they were typed.

    A ``~`` in front of a folder is the home folder, wherever it comes from: a shell does not see it behind ``=``, in
    quotes, or in a config.

    Args:
        argv: command line of a process; this one's when None. Only ``run`` and ``run_workflow`` of ``monai.bundle`` are
            looked at.

    Raises:
        ValueError: the message names the key, what was given, and the key or kind of value that was expected.
    """
    argv = sys.argv if argv is None else argv
    is_run = Path(argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py") and argv[1:2] in (["run"], ["run_workflow"])
    if is_run:
        _check_options(argv)
    read_as_typed(argv[2:] if is_run else [])
    if (parser := running_config()) is not None:
        check_config(parser, parser.ref_resolver.resolved_content.get("bundle_root"))


def _check_options(argv: Sequence[str]) -> None:
    from monai.bundle import ConfigParser

    options = parse_options(argv[2:])
    if "args_file" in options:  # MONAI's file of arguments, which those of the command line go before
        options = {**ConfigParser.load_config_file(options["args_file"]), **options}
    config = {**_of_tracking(options.get("tracking")), **ConfigParser.load_config_files(options.get("config_file", {}))}
    for key, value in options.items():
        if key not in run_parameters():
            check_override(key.lstrip("+~"), value, config)


def _of_tracking(tracking: Any) -> Mapping[str, Any]:
    """Keys that MONAI's experiment tracking adds to a config: by its name, or of a file of settings."""
    from monai.bundle import ConfigParser
    from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

    settings = DEFAULT_EXP_MGMT_SETTINGS.get(tracking) if isinstance(tracking, str) else {}
    return (ConfigParser.load_config_files(tracking) if settings is None else settings).get("configs", {})


def put_overrides(parser: ConfigParser, overrides: Mapping[str, Any], bundle_root: Path) -> None:
    """Put overrides that are given in Python into a config, each checked, and then the whole of it.

    Args:
        parser: holds the config.
        overrides: new values by keys ``a#b#c``.
        bundle_root: the bundle's folder, whose config files say which keys there are.

    Raises:
        ValueError: the message names the key, what was given, and the key or kind of value that was expected.
    """
    for key, value in overrides.items():
        check_override(key, value, parser.get())
        parser[key] = as_override(value)
    check_config(parser, str(bundle_root))


def check_override(key: str, value: Any, config: Mapping[str, Any]) -> None:
    """Check one override, ``a#b#c`` and its new value, against the nested config."""
    if key in PLACES and value == "":  # of a shell's variable that is not set; beside "/model.pt" it is the root
        raise ValueError(f"--{key}: found '', expected a path")
    node: Any = config
    for depth, part in enumerate(key.split("#")):
        if isinstance(node, str) and node.startswith(EXPRESSION):
            return  # what an expression gives is not known yet
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        elif part.startswith("_") or _takes(node, part):
            return
        else:
            raise ValueError(_unknown(key, depth, node))
    _check_kind(key, value, node)


def _takes(node: Any, name: str) -> bool:
    """Whether the class that a config node makes has an argument that the config leaves at its default."""
    arguments = _arguments(node)
    return arguments is None or name in arguments


def _arguments(node: Any) -> list[str] | None:
    """Names of the arguments of a node's ``_target_``; None where they cannot be known, none for other nodes."""
    target = node.get("_target_", "") if isinstance(node, Mapping) else ""
    if not target:
        return []
    parameters = parameters_of(locate(target)) if "." in target else None
    return None if parameters is None else list(parameters)


def _unknown(key: str, depth: int, node: Any) -> str:
    parts = key.split("#")
    known = sorted(map(str, node)) if isinstance(node, Mapping) else []
    known = [name for name in dict.fromkeys([*known, *(_arguments(node) or [])]) if not name.startswith("_")]
    close = get_close_matches(parts[depth], known, n=1)
    meant = "#".join([*parts[:depth], *close, *parts[depth + 1 :]]) if close else ""
    hint = f"did you mean --{meant}? " if meant else ""
    expected = f"one of {', '.join(known)}" if known else "an index of the list" if isinstance(node, list) else "no key"
    return f"--{key}: the config has no {'#'.join(parts[: depth + 1])}; {hint}Expected {expected}"


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the one it replaces; what is computed and nulls say nothing of their kind."""
    if value is None:
        _check_none(key, default)
        return
    if isinstance(default, list) and default and all(isinstance(entry, str) for entry in default):
        return  # one entry of a drop-down of MONAI Label, as its reader knows it: "5 %" is 0.05, too
    if not _is_computed(default) and not _is_computed(value) and not admits(hint_of(default), value):
        _refuse(key, value, default)


def _check_none(key: str, default: Any) -> None:
    """Let None replace a number, which is often a limit, and what is computed; what reads it may still refuse it."""
    if _is_computed(default) and "#" not in key:
        raise ValueError(f"--{key}: found None; leave the option out for the config's own value")
    if isinstance(default, bool | str | list | dict) and not _is_computed(default):
        _refuse(key, None, default)


def _refuse(key: str, value: Any, default: Any) -> NoReturn:
    example = "" if isinstance(default, bool | dict) else f" such as {default!r}"
    raise ValueError(f"--{key}: found {value!r}, expected {in_words(type(default))}{example}")


def _is_computed(value: Any) -> bool:
    """Whether this is an expression or a component, such as the device of ``multi_gpu_train.json``."""
    if isinstance(value, Mapping):
        return "_target_" in value
    return isinstance(value, str) and value.startswith(EXPRESSION)
