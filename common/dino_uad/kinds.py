"""Whether a value is of the kind that a parameter's annotation says, and that kind in words."""

from __future__ import annotations

import collections.abc
import inspect
import os
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any

KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a dictionary",
    NoneType: "None",
    collections.abc.Callable: "a function",
}
PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
NUMBERS = {int: Integral, float: Real}
SEQUENCES = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
MAPPINGS = (dict, collections.abc.Mapping)
GIVEN_AS_TEXT = (Enum, os.PathLike)
NAMED = ("device", "dtype")
"""Classes whose objects are given by a name; those of torch and numpy by theirs, as the command line loads neither."""


def hints_of(made: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of the parameters of a function, or of a class's constructor; none where they cannot be read."""
    try:
        return typing.get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except (NameError, TypeError, AttributeError):  # names that only a type checker imports
        return {}


def parameters_of(made: Callable[..., Any] | None) -> Mapping[str, inspect.Parameter] | None:
    """Parameters of a function or class by name; None where they cannot be known, or any name is taken."""
    try:
        parameters = inspect.signature(made).parameters if made is not None else {}
    except (TypeError, ValueError):  # nothing that can be called, or built in
        return None
    open_ended = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    return None if made is None or open_ended else parameters


def hint_of(setting: Any) -> Any:
    """The kind of a config's own value as an annotation of what may replace it; text and None say nothing."""
    return type(setting) if type(setting) in (bool, int, float, list, dict) else Any


def admits(hint: Any, value: Any) -> bool:
    """Whether a plain value, of a config or a command line, is of the kind ``hint``."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return any(admits(part, value) for part in parts)
    if origin is typing.Literal:
        return value in parts
    kind = NoneType if hint is None else origin or hint
    if kind in SEQUENCES:
        listed = isinstance(value, list | tuple)
        entries = {part for part in parts if part is not Ellipsis}
        return listed and (len(entries) != 1 or all(admits(next(iter(entries)), entry) for entry in value))
    if kind in NUMBERS:
        return isinstance(value, NUMBERS[kind]) and not isinstance(value, bool)
    by_name = isinstance(kind, type) and (issubclass(kind, GIVEN_AS_TEXT) or kind.__name__ in NAMED)
    return by_name or not isinstance(kind, type) or _is_instance(value, kind)


def _is_instance(value: Any, kind: type) -> bool:
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that only a type checker can judge
        return True


def in_words(hint: Any) -> str:
    """What a person is told to give: ``a list of whole numbers or None``."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        plain = [
            part for part in parts if part in KINDS or not isinstance(part, type) or part in (*SEQUENCES, *MAPPINGS)
        ]
        return " or ".join(dict.fromkeys(map(in_words, plain or parts)))  # others only Python code can make
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, parts))}"
    if (origin or hint) in SEQUENCES:
        entries = {part for part in parts if part is not Ellipsis}
        return f"a list of {PLURALS[entries.pop()]}" if len(entries) == 1 and entries <= set(PLURALS) else KINDS[list]
    kind = dict if (origin or hint) in MAPPINGS else origin or hint
    return KINDS.get(kind, getattr(kind, "__name__", str(kind)))
