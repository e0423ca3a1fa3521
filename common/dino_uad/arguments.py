"""Arguments of a verb, checked before it runs: python-fire alone would notice a wrong one only after hours of work."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import typing
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Any, NoReturn

import fire.decorators

from dino_uad.as_typed import expand_folder
from dino_uad.kinds import admits, in_words
from dino_uad.settings import RANGES

# fire notes in an attribute of a function how to parse its arguments, and would show that as a group of commands.
fire.decorators.FIRE_METADATA = "_FIRE_METADATA"


class PreparedCall:
    """A verb with its arguments; fire finds nothing in it that it could call, and so refuses a word too many."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function


def run(call: PreparedCall) -> Any:
    """Run the verb; what it returns."""
    return call._function()


def prepared(name: str, verb: Callable[..., Any]) -> Callable[..., PreparedCall]:
    """Wrap ``verb`` for fire: the wrapper checks the values and returns a :class:`PreparedCall`."""

    signature, hints = inspect.signature(verb), typing.get_type_hints(verb)

    @functools.wraps(verb)
    def prepare(*args: Any, **kwargs: Any) -> PreparedCall:
        bound = signature.bind(*args, **kwargs)
        for key, value in bound.arguments.items():
            hint = hints.get(key)
            if signature.parameters[key].kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[key] = {option: _checked(name, option, given, hint) for option, given in value.items()}
            else:
                bound.arguments[key] = _checked(name, key, value, hint)
        return PreparedCall(functools.partial(verb, *bound.args, **bound.kwargs))

    shown = [p.replace(annotation=_shown(hints.get(key))) for key, p in signature.parameters.items()]
    vars(prepare)["__signature__"] = signature.replace(parameters=shown)
    texts = [key for key, hint in hints.items() if _kinds(hint) == {str}]
    return fire.decorators.SetParseFn(_as_typed, *texts)(prepare) if texts else prepare


def _shown(hint: Any) -> Any:
    """What fire's help shows as the type of a parameter: the first of several; it marks by itself what may be None."""
    return typing.get_args(hint)[0] if isinstance(hint, UnionType) else hint


def _as_typed(text: str) -> str | bool | None:
    """Keep text as typed, which fire would parse (``1e5``, ``a,b``, ``case#7``); its "True" is a missing value."""
    return {"None": None, "True": True}.get(text, text)


def refuse_unknown_options(name: str, verb: Callable[..., Any], words: Sequence[str]) -> None:
    """End with status 2 if an option is none of the verb's."""
    parameters = inspect.signature(verb).parameters
    if isinstance(verb, type) or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = {*parameters, *(f"no{parameter}" for parameter in parameters), "help"}
    given = [word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--") and len(word) > 2]
    unknown = [option for option in given if option not in known]
    if unknown:
        options = ", ".join(f"--{parameter}" for parameter in parameters)
        fail(f"{name} has no option --{unknown[0]}; its options: {options}")


def fail(message: str) -> NoReturn:
    """One line on standard error, and status 2: the command line is wrong."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _checked(name: str, key: str, value: Any, hint: Any) -> Any:
    """The value, which must be of the parameter's kind; ``~/`` is the home folder, which a shell leaves in quotes."""
    is_text = _kinds(hint) == {str}
    value = str(value) if is_text and not isinstance(value, bool | None) else value
    if value == "" or not (value is None or admits(hint, value)):
        fail(f"{name}: --{key}: found {'no value' if value is True else repr(value)}, expected {in_words(hint)}")
    if key in RANGES and value is not None:
        try:
            RANGES[key](f"--{key}", value)
        except ValueError as error:
            fail(f"{name}: {error}")
    return os.path.expanduser(value) if is_text and value is not None else expand_folder(key, value)


def _kinds(hint: Any) -> set[Any]:
    """The parts of ``int | None`` but for None; else the hint itself."""
    return set(typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)) - {NoneType}
