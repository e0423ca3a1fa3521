"""A model remembers what it was fitted with, so that loading it into anything else is an error and not a wrong map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dino_uad.backbones import DinoBackbone
from dino_uad.heads import Head

# Stored as the default of inference, which may choose other slices: a difference makes no map wrong.
NOT_COMPARED = ("slices",)
# Facts that older models lack, with the values that they were fitted with: the step was not there.
BEFORE = {"joined": False, "foreground": "none", "neighbourhood": 1, "baseline": 0.0, "units": False}
# Facts that older models lack and whose value is unknown: they are not compared.
NOT_SAID_BEFORE = ("head", "smoothing_sigma")
SIZE = 1024  # bytes; a fixed size lets MONAI's `copy_model_state`, which compares shapes, treat it like any tensor


def of_backbone(backbone: DinoBackbone) -> dict[str, Any]:
    """Facts of a backbone: architecture, weights, and which blocks are read how."""
    return {
        "arch": backbone.arch,
        "weights": backbone.identity[:16],
        "layers": list(backbone.layers),
        "joined": backbone.joined,
        "final_norm": backbone.final_norm,
    }


def of_head(head: Head) -> dict[str, Any]:
    """Facts of a head: the method, and its settings that decide the scores (:meth:`Head.deciding`)."""
    return {"method": type(head).__name__, "head": head.deciding()}


def encode(facts: Mapping[str, Any]) -> Tensor:
    """Write ``facts`` (JSON types) as a ``[SIZE]`` uint8 tensor, zero padded."""
    text = json.dumps(facts, sort_keys=True).encode()
    if len(text) > SIZE:
        raise ValueError(f"fingerprint of {len(text)} bytes found, at most {SIZE} fit; shorten `preprocessing`")
    encoded = torch.zeros(SIZE, dtype=torch.uint8)
    encoded[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return encoded


def decode(encoded: Tensor) -> dict[str, Any]:
    """Read what :func:`encode` wrote; raises ValueError if the bytes are no JSON object."""
    facts = json.loads(bytes(encoded.cpu().tolist()).rstrip(b"\0") or b"{}")
    if not isinstance(facts, dict):
        raise ValueError(f"{type(facts).__name__} instead of names and values")
    return facts


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """List one sentence for each fact on which checkpoint and network disagree; facts of the head are ``head#…``."""
    unsaid = {name: current[name] for name in NOT_SAID_BEFORE if name in current}
    stored, current = _flat(BEFORE | unsaid | dict(stored)), _flat(current)
    return [
        f"{name}: the checkpoint was fitted with {stored.get(name)!r}, this network has {current.get(name)!r}"
        for name in sorted(set(stored) | set(current))
        if name not in NOT_COMPARED and stored.get(name) != current.get(name)
    ]


def mismatches(stored: Tensor | None, facts: Mapping[str, Any]) -> list[str]:
    """Why a checkpoint with the fingerprint ``stored`` is none of a network of these ``facts``; empty if it is one."""
    if stored is None:
        return ["no fingerprint found: this is not a checkpoint of an AnomalyDetector; fit it with train.json"]
    if stored.dtype != torch.uint8 or stored.shape != (SIZE,):
        return [f"fingerprint of {stored.dtype} {list(stored.shape)} found, uint8 [{SIZE}] expected"]
    try:
        return differences(decode(stored), facts)
    except (ValueError, AttributeError) as error:
        return [f"fingerprint cannot be read ({error}): the file is damaged"]


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    head = {f"head#{name}": value for name, value in facts.get("head", {}).items()}
    return {name: value for name, value in facts.items() if name != "head"} | head
