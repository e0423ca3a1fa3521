"""Unsupervised anomaly detection in medical images with frozen DINO features, as MONAI bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dino_uad.predictor import Predictor

__version__ = "0.2.0"


def load(bundle: Any, device: Any = None, **overrides: Any) -> Predictor:
    """A fitted bundle, ready to be called with images: see :class:`dino_uad.predictor.Predictor`."""
    from dino_uad.predictor import Predictor  # torch and MONAI take seconds: only those wait who need them

    return Predictor(bundle, device, **overrides)
