"""Findings: the connected places of an anomaly map that reach an operating point, measured on the scan's own grid."""

from dino_uad.findings.components import components
from dino_uad.findings.finding import Finding, extract_findings
from dino_uad.findings.grid import ScanGrid
from dino_uad.findings.min_size import MinSize

__all__ = [
    "Finding",
    "MinSize",
    "ScanGrid",
    "components",
    "extract_findings",
]
