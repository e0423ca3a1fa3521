"""Which keys of a bundle's config an override may replace, and by what kind of value."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pydoc import locate
from typing import Any, NoReturn

EXPRESSION = ("$", "@", "%")  # of MONAI's config language
PLACES = ("dataset_dir", "output_dir", "ckpt_dir", "model_file", "cache_dir", "bundle_root")
"""Keys whose values are folders or files."""
KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a dictionary",
}
"""What messages call each kind of value."""


def expand_folder(key: str, value: Any) -> Any:
    """The value of a config key, ``~`` in front of a folder replaced by the home folder."""
    return os.path.expanduser(value) if key in PLACES and isinstance(value, str) else value


def check_override(key: str, value: Any, config: Mapping[str, Any]) -> None:
    """Check one override, ``a#b#c`` and its new value, against the nested config.

    Raises:
        ValueError: no such key, a value of another kind, or an empty path; the message says what was expected.
    """
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
    made = locate(target) if "." in target else None
    if made is None:
        return None if target else []
    parameters = inspect.signature(made).parameters.values()
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters) else [p.name for p in parameters]


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
    if default is None or any(_is_computed(thing) for thing in (value, default)):
        return
    if isinstance(default, list) and default and all(isinstance(entry, str) for entry in default):
        return  # one entry of a drop-down of MONAI Label, as its reader knows it: "5 %" is 0.05, too
    kinds: tuple[type, ...] = (type(default),)
    if isinstance(default, float):
        kinds = (float, int)
    elif isinstance(default, list):
        kinds = (list, tuple)
    if isinstance(default, str) or (isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)):
        return
    _refuse(key, value, default)


def _check_none(key: str, default: Any) -> None:
    """Let None replace a number, which is often a limit, and what is computed; what reads it may still refuse it."""
    if _is_computed(default) and "#" not in key:
        raise ValueError(f"--{key}: found None; leave the option out for the config's own value")
    if isinstance(default, bool | str | list | dict) and not _is_computed(default):
        _refuse(key, None, default)


def _refuse(key: str, value: Any, default: Any) -> NoReturn:
    raise ValueError(
        f"--{key}: found {value!r}, expected {KINDS.get(type(default), type(default).__name__)}"
        f"{'' if isinstance(default, bool | dict) else f' such as {default!r}'}"
    )


def _is_computed(value: Any) -> bool:
    """Whether this is an expression or a component, such as the device of ``multi_gpu_train.json``."""
    if isinstance(value, Mapping):
        return "_target_" in value
    return isinstance(value, str) and value.startswith(EXPRESSION)
