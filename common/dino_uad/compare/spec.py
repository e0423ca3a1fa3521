"""What a comparison runs: bundles with variants, backbones with layers, written short on the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

INTENSITY = "intensity"
BASELINES = ("mean_distance", INTENSITY)


@dataclass(frozen=True)
class Method:
    """A bundle, or a baseline, with settings that differ from the bundle's config: of its head, or of keys with #."""

    bundle: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How tables call it: ``dpmm score_type=likelihood``."""
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
    """An architecture, the blocks that are read, and whether its weights are random."""

    arch: str
    layers: tuple[int, ...] = (-1,)
    final_norm: bool = True
    random: bool = False

    @property
    def name(self) -> str:
        """How tables call it: ``dinov2_vits14 block 9``, counting blocks from 1."""
        blocks = "" if self.final_norm else " block " + "+".join(str(layer + 1) for layer in self.layers)
        return self.arch + blocks + (" random weights" if self.random else "")

    @classmethod
    def parse(cls, text: str) -> BackboneSpec:
        """Read ``arch`` (last block, final norm), ``arch@8`` or ``arch@8+11`` (block indices, no norm), ``...:random``.

        Raises:
            ValueError: a block index is not a number, or what follows ``:`` is not ``random``.
        """
        text_, _, flag = text.partition(":")
        arch, _, layers = text_.partition("@")
        try:
            indices = tuple(int(index) for index in layers.split("+")) if layers else (-1,)
        except ValueError:
            indices = ()
        if not arch or not indices or flag not in ("", "random"):
            raise ValueError(f"backbone {text!r} found; expected arch, arch@8 (block index from 0) or arch:random")
        return cls(arch, indices, not layers, flag == "random")

    def config(self) -> dict[str, Any]:
        """The ``network_def#backbone`` settings."""
        return {
            "arch": self.arch,
            "layers": list(self.layers),
            "final_norm": self.final_norm,
            "weights": "random" if self.random else None,
        }


def words(value: str | Sequence[Any] | int) -> list[str]:
    """Split ``a,b`` as fire passes it on (a string, a tuple or one number); commas inside brackets do not separate."""
    if isinstance(value, str):
        return [word.strip() for word in re.split(r",(?![^\[(]*[\])])", value) if word.strip()]
    return [str(part).strip() for part in (value if isinstance(value, Sequence) else [value])]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "null": None}.get(text, text)
