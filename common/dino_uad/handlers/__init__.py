"""Ignite handlers of a fit and an evaluation: checkpoints, thresholds, metrics file, report."""

from dino_uad.handlers.calibration import calibrate, score
from dino_uad.handlers.epoch_seed import EpochSeed
from dino_uad.handlers.finish import FinishFit
from dino_uad.handlers.fit_checkpoint import FitCheckpoint
from dino_uad.handlers.measure_residuals import MeasureResiduals
from dino_uad.handlers.metrics_json import MetricsJson
from dino_uad.handlers.one_cycle import OneCycle
from dino_uad.handlers.progress import FitProgress
from dino_uad.handlers.report_handler import ReportHandler
from dino_uad.handlers.scan_tally import ScanTally
from dino_uad.handlers.worklist_handler import WorklistHandler

__all__ = [
    "EpochSeed",
    "FinishFit",
    "FitCheckpoint",
    "FitProgress",
    "MeasureResiduals",
    "MetricsJson",
    "OneCycle",
    "ReportHandler",
    "ScanTally",
    "WorklistHandler",
    "calibrate",
    "score",
]
