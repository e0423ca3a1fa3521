"""What a ``model.pt`` of an earlier version does not hold, and every one leaves out: filled in before it is loaded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dino_uad.detector.baseline import ImageBaseline
from dino_uad.detector.fitted_images import FittedImages
from dino_uad.detector.normal_scans import NormalScans
from dino_uad.detector.units import Units


def complete(state: dict[str, Tensor], prefix: str, detector: nn.Module) -> None:
    """Add what is missing in a detector's state dict, in place.

    - The backbone, which is in no model file, and the share of the baseline, which the fingerprint alone told before
      there was ``auto``: the detector's own.
    - Which images it was fitted to: none are known.
    - Decisions on whole scans, thresholds finer than 1 %, units and baseline, which version 0.1 lacks: uncalibrated.

    Args:
        state: names, which begin with ``prefix``, to tensors.
        prefix: of the detector's names, as torch hands it to ``_load_from_state_dict``.
        detector: the :class:`~dino_uad.detector.AnomalyDetector` to load them.
    """
    state.pop(prefix + "image_score_range", None)  # version 0.1 stored it, and nothing read it
    known = dict(detector.backbone.state_dict(prefix=prefix + "backbone."))
    if prefix + "normal_scans.finding_thresholds" not in state:
        _lengthen(state, prefix + "thresholds", len(detector.thresholds))
        if prefix + "thresholds" in state:  # of all pixels, as they were then
            known[prefix + "pixel_thresholds"] = state[prefix + "thresholds"]
        known |= Units().state_dict(prefix=prefix + "units.")
        known |= ImageBaseline().state_dict(prefix=prefix + "baseline.")
    known |= NormalScans().state_dict(prefix=prefix + "normal_scans.")
    known |= FittedImages().state_dict(prefix=prefix + "fitted_images.")
    known[prefix + "baseline.share"] = detector.baseline.share
    for key, value in known.items():
        state.setdefault(key, value)


def _lengthen(state: dict[str, Tensor], key: str, length: int) -> None:
    """Fill up a vector with NaN."""
    stored = state.get(key)
    if stored is not None and stored.ndim == 1 and len(stored) < length:
        state[key] = torch.cat([stored, stored.new_full((length - len(stored),), torch.nan)])
