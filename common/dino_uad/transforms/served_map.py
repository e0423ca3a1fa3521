"""The map as a MONAI Label server can write it, and what is known of the scan beside it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform

from dino_uad.transforms.unscored import NOTHING_SCORED, nothing_scored

REQUESTED = "image_path"
"""Item key under which MONAI Label keeps what it was asked for."""


class ServedMapd(MapTransform):
    """Gives a map ``[1,...]`` the form that MONAI Label can write: no channel axis, pictures in 8 bit.

    The server writes a map in its image's format, and a PNG holds no float. The anomaly map ``[1,W,H]`` of a picture is
    scaled from its lowest to its highest score; volumes and label maps keep their values.

    What is known of the scan goes into ``result``, which the server sends along as ``params``: the numbers of
    :class:`~dino_uad.transforms.score_scan.ScoreScand`, ``findings``, a list of dictionaries, and ``notes``.

    Raises:
        ValueError: MONAI Label asked, and no slice of the scan was scored: an empty label would call it normal. (The
            worklist of a run lists such a scan as failed, and goes on.)
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if REQUESTED in result and nothing_scored(result):
            raise ValueError(f"{result[REQUESTED]}: {NOTHING_SCORED}")
        for key in self.key_iterator(result):
            served = result[key][0]
            if served.dtype == torch.int16 and served.max() < 256:
                served = served.to(torch.uint8)
            if served.ndim == 2 and served.is_floating_point():
                low, high = float(served.min()), float(served.max())
                served = ((served - low) * (255 / max(high - low, 1e-12))).round().to(torch.uint8)
            result[key] = served
        if "scan" in result:
            findings = [finding.as_dict() for finding in result.get("findings", [])]
            result["result"] = {**result["scan"], "findings": findings, "notes": list(result.get("notes", []))}
        return result
