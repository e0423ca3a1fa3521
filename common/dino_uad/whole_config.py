"""A config as it is about to run, wherever its values come from: command line, files, MONAI Label, or Python.

``monai.bundle.run(max_epoch=5)`` adds a key that nothing reads, and a head that gets text for a number may notice hours
later. What the bundle's own files and the annotations of its components say is checked before anything is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from pydoc import locate
from typing import TYPE_CHECKING, Any

from dino_uad.kinds import KINDS, admits, hints_of, in_words, parameters_of
from dino_uad.settings import RANGES
from dino_uad.verbatim import EXPRESSION

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

STEPS = ("imports", "initialize", "run", "finalize")
REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")


def check_config(parser: ConfigParser, bundle_root: str | None) -> None:
    """Refuse settings that nothing reads, and values of another kind than the one that their component takes.

    Args:
        parser: holds the config.
        bundle_root: the bundle's folder, whose config files say which keys there are; None checks the kinds only.

    Raises:
        ValueError: the message names the key, what was found, and the key or kind of value that was expected.
    """
    config = parser.get()
    if bundle_root is not None:
        known = known_config(Path(bundle_root) / "configs", config)
        if known:
            _check_keys(config, known, referred_to(config))
    for key, node in components(config):
        _check_arguments(key, node, parser)


def known_config(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a folder's config files, joined, whose top-level keys the config has: they are what it was made of."""
    from monai.bundle import ConfigParser

    known: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name != "metadata.json":
            content = ConfigParser.load_config_file(path)
            if all(key.lstrip("+~").partition("#")[0] in config for key in content):
                known = _joined(known, {key: value for key, value in content.items() if "#" not in key})
    return known


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested dictionaries as one; where they differ, the keys of both."""
    both = {**second, **first}
    for key in set(first) & set(second):
        if isinstance(first[key], Mapping) and isinstance(second[key], Mapping):
            both[key] = _joined(first[key], second[key])
    return both


def referred_to(config: Any) -> set[str]:
    """The ids, ``a#b``, that expressions of a config refer to."""
    if isinstance(config, str):
        found = REFERENCE.findall(config) if config.startswith(EXPRESSION) else []
        return {one.replace("::", "#") for one in found}
    parts = config.values() if isinstance(config, Mapping) else config if isinstance(config, list) else ()
    return set().union(*map(referred_to, parts))


def _check_keys(config: Mapping[str, Any], known: Mapping[str, Any], used: set[str], above: str = "") -> None:
    """Refuse keys of settings (what is made, computed or referred to may have any name), and settings left out."""
    for key, value in config.items():
        path = f"{above}{key}"
        if key not in known:
            is_used = any(one == path or one.startswith(f"{path}#") for one in used)
            if not is_used and not str(key).startswith("_") and is_plain(value):
                raise ValueError(_unread(path, value, known))
        elif isinstance(known[key], Mapping) and "_target_" not in known[key] and is_plain(value):
            if not isinstance(value, Mapping):
                raise ValueError(f"--{path}: found {value!r}, expected {KINDS[dict]} with {', '.join(known[key])}")
            _check_keys(value, known[key], used, f"{path}#")
    missing = [key for key in known if key not in config and f"{above}{key}" in used]
    if missing:
        name = above.rstrip("#")
        raise ValueError(
            f"--{name}: found {dict(config)!r} without {', '.join(missing)}, expected all of {', '.join(known)}; or "
            f"give single ones, such as --{above}{next(iter(config), missing[0])}"
        )


def _unread(path: str, value: Any, known: Mapping[str, Any]) -> str:
    *above, name = path.split("#")
    close = get_close_matches(name, known, n=1)
    settings = [
        key for key in sorted(known) if key not in STEPS and (is_plain(known[key]) or isinstance(known[key], str))
    ]
    hint = f"did you mean {'#'.join([*above, *close])}? " if close else ""
    return f"{path} is {value!r}, but nothing in the config reads {path}; {hint}Expected one of {', '.join(settings)}"


def is_plain(value: Any) -> bool:
    """Whether a value is a setting: text, a number, or lists and dictionaries of these, and not made or computed."""
    if isinstance(value, str):
        return not value.startswith(EXPRESSION)
    if isinstance(value, Mapping):
        return "_target_" not in value and all(map(is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float)


def components(node: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All nodes of a config that make something, by their ids."""
    if isinstance(node, Mapping) and "_target_" in node:
        yield key, node
    named = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, part in named:
        yield from components(part, f"{key}#{name}".lstrip("#"))


def _check_arguments(key: str, node: Mapping[str, Any], parser: ConfigParser) -> None:
    """Refuse arguments that a component does not take, and plain values of a wrong kind or out of range."""
    made = _made_by(node["_target_"], parser)
    parameters = parameters_of(made)
    if parameters is None:
        return
    hints = hints_of(made)
    for name, value in node.items():
        if name.startswith("_"):
            continue
        if name not in parameters:
            raise ValueError(f"--{key}#{name}: {node['_target_']} takes no {name}; expected {', '.join(parameters)}")
        place, value = _followed(f"{key}#{name}", value, parser)
        if not is_plain(value) or value == parameters[name].default:
            continue
        if name in hints and not admits(hints[name], value):
            raise ValueError(f"--{place}: found {value!r}, expected {in_words(hints[name])}")
        if name in RANGES and value is not None:
            RANGES[name](f"--{place}", value)


def _made_by(target: Any, parser: ConfigParser) -> Callable[..., Any] | None:
    """What a ``_target_`` names, among MONAI's own if it is one word; None where it is not found."""
    if not isinstance(target, str):
        return target if callable(target) else None
    if "." not in target:
        module = parser.locator.get_component_module_name(target)
        target = f"{module[0] if isinstance(module, list) else module}.{target}"
    made = locate(target)
    return made if callable(made) else None


def _followed(place: str, value: Any, parser: ConfigParser) -> tuple[str, Any]:
    """A value and its key, or those that it only refers to."""
    while isinstance(value, str) and (found := REFERENCE.fullmatch(value)) and found[1] in parser:
        place, value = found[1].replace("::", "#"), parser[found[1]]
    return place, value
