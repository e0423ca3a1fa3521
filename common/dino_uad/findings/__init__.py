"""Findings: the connected places of an anomaly map that reach an operating point, measured on the scan's own grid."""

from dino_uad.findings.finding import Finding, extract_findings
from dino_uad.findings.grid import LPS_TO_RAS, NO_SPACING, ScanGrid
from dino_uad.findings.min_size import MinSize
from dino_uad.findings.regions import components

__all__ = [
    "LPS_TO_RAS",
    "NO_SPACING",
    "Finding",
    "MinSize",
    "ScanGrid",
    "components",
    "extract_findings",
]
