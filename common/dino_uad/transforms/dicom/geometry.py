"""Where a stack of DICOM frames lies: its affine, and whether its slices are evenly spaced or sheared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dino_uad.findings import LPS_TO_RAS
from dino_uad.transforms.dicom.frames import Frame

TILT = 0.5  # degrees


@dataclass(frozen=True)
class Spacing:
    """The step from slice to slice."""

    step: np.ndarray
    """``[3]``, mm in the patient's (left, posterior, superior)."""
    deviation: float
    """The largest distance of a slice from where even steps would put it, mm."""
    tolerance: float
    """The largest deviation that rounded positions explain, mm."""
    tilt: float
    """Angle between the step and the slices' normal, degrees."""

    @property
    def even(self) -> bool:
        return self.deviation <= self.tolerance

    @property
    def doubt(self) -> str:
        """Why an affine does not tell where all slices lie; empty where it does."""
        return "" if self.even else f"slices not evenly spaced (up to {self.deviation:.2f} mm off; missing slices?)"


def spacing_of(frames: Sequence[Frame]) -> Spacing:
    """The spacing of frames in the order of their positions; of a single one by its thickness.

    Positions are decimal strings of at most 16 characters, so they are rounded; scanners round them to as little as
    0.1 mm. Up to 1 % of the step, or two units of the last place that is written, is no unevenness.
    """
    first = frames[0]
    if first.position is None:
        return Spacing(np.array([0.0, 0.0, first.gap]), 0.0, 0.0, 0.0)
    if len(frames) == 1:
        return Spacing(first.normal * first.gap, 0.0, 0.0, 0.0)
    positions = np.array([frame.position for frame in frames])
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    length = max(float(np.linalg.norm(step)), 1e-9)
    even = positions[0] + np.arange(len(frames))[:, None] * step
    deviation = float(np.linalg.norm(positions - even, axis=1).max())
    precision = min(frame.precision for frame in frames)
    tolerance = max(0.01 * length, min(2 * precision, 0.3 * length))
    tilt = float(np.rad2deg(np.arccos(np.clip(abs(step @ first.normal) / length, 0, 1))))
    return Spacing(step, deviation, tolerance, tilt)


def affine_of(frames: Sequence[Frame]) -> np.ndarray:
    """The 4x4 affine from voxel ``(column, row, slice)`` to the patient's (right, anterior, superior) in mm.

    The third column is the step from slice to slice as it is: of a scan with gantry tilt the affine is sheared.
    """
    first = frames[0]
    row, column = np.reshape(first.orientation or (1, 0, 0, 0, 1, 0), (2, 3))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    affine[:3, 2] = spacing_of(frames).step
    affine[:3, 3] = first.position or (0.0, 0.0, 0.0)
    return LPS_TO_RAS @ affine
