"""What a comparison runs: bundles with variants, backbones with layers, written short on the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dino_uad.settings import require

T = TypeVar("T")

INTENSITY = "intensity"
BRIGHTNESS = "brightness"
BASELINES = ("mean_distance", BRIGHTNESS, INTENSITY)
NO_BACKBONE = (BRIGHTNESS, INTENSITY)


@dataclass(frozen=True)
class Method:
    """A bundle, or a baseline, with settings that differ from the bundle's config: of its head, or of keys with #."""

    bundle: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name in tables, such as ``dpmm score_type=likelihood``."""
        return " ".join([self.bundle, *(f"{key}={value}" for key, value in self.settings.items())])

    @classmethod
    def parse(cls, text: str) -> Method:
        """Read ``bundle`` or ``bundle:key=value:key=value``; the values are Python literals or plain words.

        Raises:
            ValueError: a part after the name is not ``key=value``.
        """
        bundle, *parts = text.split(":")
        pairs = [part.partition("=") for part in parts]
        if not bundle or any(not (key and sign) for key, sign, _ in pairs):
            raise ValueError(f"method {text!r} found; expected bundle or bundle:key=value, e.g. dino_ad:n_clusters=1")
        return cls(bundle, {key: _literal(value) for key, _, value in pairs})


@dataclass(frozen=True)
class BackboneSpec:
    """An architecture, the blocks that are read (the bundle's own when None), and whether its weights are random."""

    arch: str
    layers: tuple[int, ...] | None = None
    random: bool = False

    @property
    def name(self) -> str:
        """Name in tables, such as ``dinov2_vits14 block 9``; blocks count from 1."""
        blocks = "" if self.layers is None else " block " + "+".join(str(layer + 1) for layer in self.layers)
        blocks = " last block" if self.layers == (-1,) else blocks
        return self.arch + blocks + (" random weights" if self.random else "")

    @classmethod
    def parse(cls, text: str) -> BackboneSpec:
        """Read ``arch`` (the bundle's blocks), ``arch@last`` (with the final norm), ``arch@8`` or ``arch@5+8``
        (block indices, joined, without it), ``...:random``.

        Raises:
            ValueError: a block index is not a number, or what follows ``:`` is not ``random``.
        """
        text_, _, flag = text.partition(":")
        arch, at, layers = text_.partition("@")
        try:
            indices = (-1,) if layers == "last" else tuple(int(index) for index in layers.split("+") if at)
        except ValueError:
            indices = ()
        if not arch or (at and not indices) or flag not in ("", "random"):
            raise ValueError(f"backbone {text!r} found; expected arch, arch@8 (block index from 0) or arch:random")
        return cls(arch, indices if at else None, flag == "random")

    def config(self) -> dict[str, Any]:
        """The ``network_def#backbone`` settings."""
        settings: dict[str, Any] = {"arch": self.arch, "weights": "random" if self.random else None}
        if self.layers is not None:
            settings |= {"layers": list(self.layers), "final_norm": self.layers == (-1,)}
        return settings


def words(value: str | Sequence[Any] | int) -> list[str]:
    """Split ``a,b`` as fire passes it on (a string, a tuple or one number); commas inside brackets do not separate."""
    if isinstance(value, str):
        return [word.strip() for word in re.split(r",(?![^\[(]*[\])])", value) if word.strip()]
    return [str(part).strip() for part in (value if isinstance(value, Sequence) else [value])]


def parsed(option: str, value: Any, parse: Callable[[str], T]) -> list[T]:
    """What an option lists, each once: cells that are run twice would count as independent in tests and deviations.

    Raises:
        ValueError: nothing, or something twice.
    """
    found = [parse(word) for word in words(value)]
    require(option, value, bool(found), "one or more, with commas between them")
    for position, one in enumerate(found):
        if one in found[:position]:
            raise ValueError(f"{option} is {value!r} and names {words(value)[position]!r} twice; expected each once")
    return found


def read_seed(word: str) -> int:
    """Read a seed; raises ValueError for anything but a whole number of at least 0."""
    require("--seeds", word, word.isdecimal(), "whole numbers of at least 0, such as 0,1,2")
    return int(word)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "null": None}.get(text, text)
