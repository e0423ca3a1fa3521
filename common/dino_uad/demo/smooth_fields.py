"""Smooth random fields on a voxel grid: the source of anatomical variety in the generated volumes."""

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import BSpline


def _bspline_matrix(n: int, step: float, knot_spacing: float) -> np.ndarray:
    """Cubic B-spline basis ``[n,controls]`` of n points ``step`` mm apart and controls ``knot_spacing`` mm apart."""
    controls = int(np.ceil(n * step / knot_spacing)) + 4
    knots = np.arange(controls + 4, dtype=np.float64)
    position = 3 + np.arange(n) * step / knot_spacing
    return BSpline.design_matrix(position, knots, 3).toarray().astype(np.float32)


def smooth_noise(
    shape: Sequence[int], spacing: Sequence[float], knot_spacing: float, rng: np.random.Generator
) -> np.ndarray:
    """Zero-mean, roughly unit-variance random field [X,Y,Z], smooth at the scale of ``knot_spacing`` mm.

    A tensor-product cubic B-spline over random control points: the free-form deformation model of Rueckert et al.,
    "Nonrigid registration using free-form deformations" (IEEE TMI 1999), equation (1). Separable, so a whole volume
    costs three small matrix products. Fortran order: each axial slice is contiguous.
    """
    bases = [_bspline_matrix(n, step, knot_spacing) for n, step in zip(shape, spacing, strict=True)]
    field = rng.standard_normal([basis.shape[1] for basis in bases], dtype=np.float32)
    for axis, basis in enumerate(bases):  # each step moves its voxel axis to the front: [Z,Y,X] in the end
        field = np.tensordot(basis, field, axes=(1, axis))
    # Each axis's basis keeps on average 0.479 of the variance of white control points.
    return field.T / np.float32(0.479**1.5)
