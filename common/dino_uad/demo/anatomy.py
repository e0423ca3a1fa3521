"""Schematic head anatomy as implicit shapes: every function returns a depth in mm, positive inside the structure.

Coordinates are millimetres in a brain-centred RAS frame (x right, y anterior, z superior, the origin near the anterior
commissure); sizes are those of an adult head. Structures are symmetric in ``|x|``; the warp that the caller applies to
the coordinates, and the folding noise, break the symmetry.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Coordinates = tuple[np.ndarray, np.ndarray, np.ndarray]

# Lateral ventricle as tapered tubes: (x, y, z, radius) from the frontal horn to the occipital and temporal horns.
_FRONTAL_TO_OCCIPITAL = (
    (9.0, 33.0, 5.0, 2.2),
    (7.5, 24.0, 9.0, 4.2),
    (6.5, 5.0, 18.0, 4.4),
    (10.0, -15.0, 22.0, 4.6),
    (23.0, -38.0, 13.0, 5.5),
    (24.0, -64.0, 5.0, 1.4),
)
_ATRIUM_TO_TEMPORAL = ((23.0, -38.0, 13.0, 5.0), (33.0, -24.0, -8.0, 2.4), (33.0, -5.0, -18.0, 1.6))


_OUTSIDE = -1e3  # depth where a structure is too far away to be worth computing


@dataclass(frozen=True)
class HeadShape:
    """Subject-specific sizes in mm (ratios where said)."""

    half_width: float  # of the head, ear to ear
    half_length: float  # forehead to occiput
    height: float  # origin to vertex
    squareness: float  # exponent of the axial superellipse; 2 is an ellipse
    taper: float  # how much narrower the forehead is than the parietal region
    ventricle: float  # ratio of ventricle radius to the typical one
    atrophy: float  # widens sulci and the subarachnoid space; 1 is typical

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "HeadShape":
        """Draw one subject."""
        atrophy = float(np.exp(rng.normal(0, 0.3)))
        return cls(
            half_width=rng.uniform(72, 80),
            half_length=rng.uniform(91, 101),
            height=rng.uniform(80, 89),
            squareness=rng.uniform(2.0, 2.5),
            taper=rng.uniform(0.03, 0.16),
            ventricle=float(np.clip(np.exp(rng.normal(0, 0.25)) * atrophy**0.5, 0.6, 1.9)),
            atrophy=min(max(atrophy, 0.6), 1.8),
        )


def slab(p: Coordinates, low: float, high: float) -> slice:
    """The slices (last axis) that meet the heights from ``low`` to ``high`` mm."""
    met = np.flatnonzero((p[2].min(axis=(0, 1)) < high) & (p[2].max(axis=(0, 1)) > low))
    return slice(met[0], met[-1] + 1) if met.size else slice(0, 0)


def _within(p: Coordinates, low: float, high: float, depth_of: Callable[[Coordinates], np.ndarray]) -> np.ndarray:
    """Evaluate ``depth_of`` in one slab only; far outside elsewhere."""
    depth = np.full(p[0].shape, _OUTSIDE, np.float32, order="F")
    rows = slab(p, low, high)
    depth[..., rows] = depth_of(tuple(c[..., rows] for c in p))
    return depth


def ellipsoid(p: Coordinates, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """First-order depth inside an axis-aligned ellipsoid; 12 mm above and below it counts as far outside."""
    reach = radii[2] + 12
    return _within(p, centre[2] - reach, centre[2] + reach, lambda q: _ellipsoid(q, centre, radii))


def _ellipsoid(p: Coordinates, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """``r (1 - r) / |grad|`` with r the normalised radius; the small terms give the centre its limit, not 0 / 0."""
    scaled = [(c - c0) / a for c, c0, a in zip(p, centre, radii, strict=True)]
    r2 = sum(s * s for s in scaled)
    slope2 = sum((s / a) ** 2 for s, a in zip(scaled, radii, strict=True))
    return np.sqrt((r2 + 1e-4) / (slope2 + 1e-4 / min(radii) ** 2)) * (1 - np.sqrt(r2))


def pair(p: Coordinates, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """The same ellipsoid on both sides of the midline."""
    return ellipsoid((np.abs(p[0]), p[1], p[2]), centre, radii)


def _tube(p: Coordinates, points: Sequence[Sequence[float]], ratio: float) -> np.ndarray:
    """Depth inside a chain of tapered capsules whose radii are multiplied by ``ratio``."""
    depth = np.full(p[0].shape, _OUTSIDE, np.float32, order="F")
    for (*start, r0), (*end, r1) in pairwise(points):
        axis = np.subtract(end, start)
        offset = [c - float(s) for c, s in zip(p, start, strict=True)]
        t = sum(o * float(a) for o, a in zip(offset, axis, strict=True)) / float(axis @ axis)
        t = np.clip(t, 0, 1)
        distance2 = sum((o - t * float(a)) ** 2 for o, a in zip(offset, axis, strict=True))
        np.maximum(depth, ratio * (r0 + t * (r1 - r0)) - np.sqrt(distance2), out=depth)
    return depth


def ventricles(p: Coordinates, ratio: float) -> np.ndarray:
    """Lateral ventricles with their horns, third and fourth ventricle."""
    x, y, z = p
    side = (np.abs(x), y, z)
    upper = _within(side, -10, 40, lambda q: _tube(q, _FRONTAL_TO_OCCIPITAL, ratio))
    lateral = np.maximum(upper, _within(side, -30, 30, lambda q: _tube(q, _ATRIUM_TO_TEMPORAL, ratio)))
    third = ellipsoid(p, (0, -8, 0), (1.8 * ratio + 0.6, 16, 11))
    fourth = ellipsoid(p, (0, -41, -32), (8 * ratio**0.5, 5, 11))
    return np.maximum(np.maximum(lateral, third), fourth)


def head(p: Coordinates, shape: HeadShape) -> np.ndarray:
    """Depth below the skin of the cranium, radially; below z = 0 the head goes on as a column."""
    x, y, z = p
    y = y + 16
    width = shape.half_width * (1 - shape.taper * np.clip(y / shape.half_length, -0.6, 1))
    q = shape.squareness
    axial = ((np.abs(x) / width) ** q + (np.abs(y) / shape.half_length) ** q) ** (2 / q)
    up = np.maximum(z, 0)
    rho = np.sqrt(axial + (up / shape.height) ** 2 + 1e-6)
    return np.sqrt(x * x + y * y + up * up) * (1 / rho - 1)


def face(p: Coordinates) -> np.ndarray:
    """Nose and ears, which only the lower slices meet."""
    nose = ellipsoid(p, (0, 84, -46), (10, 20, 24))
    ears = pair(p, (77, -18, -32), (5, 13, 20))
    return np.maximum(nose, ears)


def cerebrum_base(p: Coordinates) -> np.ndarray:
    """Above the orbital roof and tentorium, together with the temporal lobes in the middle fossa."""
    x, y, z = p
    floor = z + 20 - 5 * np.exp(-((x / 15) ** 2))
    temporal = pair(p, (40, 2, -20), (25, 39, 23))
    occipital = np.minimum(_above_tentorium(p), -20 - y)
    return np.maximum(np.maximum(floor, temporal), occipital)


def _above_tentorium(p: Coordinates) -> np.ndarray:
    """Height over the tent between cerebrum and cerebellum; its ridge is the midline."""
    return 0.93 * (p[2] + 5 + 0.4 * np.abs(p[0]))


def cerebellum(p: Coordinates) -> np.ndarray:
    """Two hemispheres and the vermis between them, under the tentorium."""
    lobes = np.maximum(pair(p, (24, -60, -34), (31, 30, 28)), ellipsoid(p, (0, -62, -30), (14, 26, 28)))
    return np.minimum(lobes, -_above_tentorium(p))


def brainstem(p: Coordinates) -> np.ndarray:
    """Midbrain with its peduncles, pons and the way down to the medulla; it ends below the thalami."""
    pons = ellipsoid(p, (0, -25, -32), (17, 14, 17))
    midbrain = ellipsoid(p, (0, -24, -14), (14, 12, 14))
    medulla = ellipsoid(p, (0, -34, -54), (10, 9, 22))
    return np.where(p[2] < -4, np.maximum(np.maximum(pons, midbrain), medulla), np.float32(_OUTSIDE))


def cisterns(p: Coordinates) -> np.ndarray:
    """Fluid around the midbrain: suprasellar, ambient and quadrigeminal cisterns."""
    suprasellar = ellipsoid(p, (0, 0, -18), (11, 9, 9))
    quadrigeminal = ellipsoid(p, (0, -38, -8), (9, 4, 9))
    ambient = ellipsoid(p, (0, -23, -15), (18, 15, 9))
    return np.maximum(np.maximum(suprasellar, quadrigeminal), ambient)


def midline_fissure(p: Coordinates) -> np.ndarray:
    """Distance (mm, unsigned) to the interhemispheric fissure, which stops at the corpus callosum."""
    below = np.maximum(ellipsoid((np.zeros_like(p[0]), p[1], p[2]), (0, -8, 2), (50, 46, 26)), 0)
    return np.sqrt(p[0] * p[0] + below * below)


def sylvian_fissure(p: Coordinates) -> np.ndarray:
    """Distance (mm, unsigned) to the Sylvian fissure: its lateral stem, and the sheet over the insula."""
    x, y, z = np.abs(p[0]), p[1] - 3 - 0.25 * p[2], p[2] - 1
    tall = np.maximum(np.abs(z) - 11, 0)
    sheet = np.sqrt((x - 38 + 0.006 * y * y) ** 2 + np.maximum(np.abs(y) - 17, 0) ** 2 + tall**2)
    stem = np.sqrt((y - 6 + 0.25 * (x - 38)) ** 2 + np.maximum(38 - x, 0) ** 2 + tall**2)
    return np.minimum(sheet, stem)
