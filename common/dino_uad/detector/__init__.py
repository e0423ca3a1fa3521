"""The network of every bundle: frozen backbone, head, calibration; image in, anomaly map out."""

from dino_uad.detector import fingerprint
from dino_uad.detector.conformal import ConformalTable, scan_scores
from dino_uad.detector.detector import AnomalyDetector
from dino_uad.detector.fitted_images import read_fitted_images
from dino_uad.detector.foreground import Foreground
from dino_uad.detector.model_file import fitted_slices, read_model, read_normal_scans, read_threshold
from dino_uad.detector.normal_scans import NormalScans, flagged_shares
from dino_uad.detector.operating_points import (
    DEFAULT_POINT,
    DRAWN,
    FALSE_POSITIVE_RATES,
    FREE_RESPONSE,
    SCAN_RATES,
    flag_name,
)
from dino_uad.detector.upsample import upsample_scores

__all__ = [
    "DEFAULT_POINT",
    "DRAWN",
    "FALSE_POSITIVE_RATES",
    "FREE_RESPONSE",
    "SCAN_RATES",
    "AnomalyDetector",
    "ConformalTable",
    "Foreground",
    "NormalScans",
    "fingerprint",
    "fitted_slices",
    "flag_name",
    "flagged_shares",
    "read_fitted_images",
    "read_model",
    "read_normal_scans",
    "read_threshold",
    "scan_scores",
    "upsample_scores",
]
