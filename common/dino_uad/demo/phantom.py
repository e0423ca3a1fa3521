"""Generated head volumes with FLAIR contrast: schematic, different for every seed, without any patient's data.

``make_anatomy`` paints tissues as soft implicit shapes (``anatomy.py``) over randomly tilted, scaled and warped
coordinates; ``acquire`` turns that noise-free signal into a magnitude image. A lesion goes in between (``lesions.py``).
Intensities before ``acquire`` are relative to white matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dino_uad.demo import anatomy
from dino_uad.demo.anatomy import Coordinates, HeadShape
from dino_uad.demo.smooth_fields import smooth_noise

SHAPE = (240, 240, 24)
SPACING = (0.94, 0.94, 5.0)


@dataclass
class Anatomy:
    """One subject before acquisition; arrays are [X,Y,Z] in RAS order."""

    signal: np.ndarray  # float32, white matter = 1
    brain: np.ndarray  # bool: brain and sulci, without ventricles
    depth: np.ndarray  # float32, mm below the brain's hull, negative outside
    spacing: tuple[float, float, float]


def _head_coordinates(shape: Sequence[int], spacing: Sequence[float], rng: np.random.Generator) -> Coordinates:
    """Tilted, shifted and smoothly warped anatomical coordinates (mm) of every voxel."""
    offset = (rng.uniform(-5, 5), -12 + rng.uniform(-5, 5), 18 + rng.uniform(-5, 5))
    grid = [
        (np.arange(n, dtype=np.float32) - (n - 1) / 2) * step + shift
        for n, step, shift in zip(shape, spacing, offset, strict=True)
    ]
    angles = rng.normal(0, 1, 3) * (3.0, 1.5, 3.0)  # pitch, roll, yaw in degrees
    x, y, z = (c.T for c in reversed(np.meshgrid(*reversed(grid), indexing="ij")))  # each slice is contiguous
    tilted = [
        a * x + b * y + c * z for a, b, c in Rotation.from_euler("xyz", angles, degrees=True).as_matrix().tolist()
    ]
    return tuple(
        c + 2.2 * smooth_noise(shape, spacing, 48, rng) + 0.7 * smooth_noise(shape, spacing, 18, rng) for c in tilted
    )


def _paint(signal: np.ndarray, value: np.ndarray | float, depth: np.ndarray, softness: float = 1.0) -> None:
    """Blend ``value`` into ``signal`` in place where ``depth`` > 0; its edge is ``softness`` mm of partial volume."""
    met = np.flatnonzero((depth > -softness / 2).any(axis=(0, 1)))
    if met.size:
        rows = slice(met[0], met[-1] + 1)
        value = value[..., rows] if isinstance(value, np.ndarray) else value
        signal[..., rows] += np.clip(depth[..., rows] / softness + 0.5, 0, 1) * (value - signal[..., rows])


def _fold_distance(p: Coordinates, spacing: Sequence[float], width: float, rng: np.random.Generator) -> np.ndarray:
    """Distance (mm, unsigned) to folds about ``width`` mm apart: the zero level of band-pass noise.

    The noise is looked up at a point moved outwards onto a common shell, so a fold keeps its place from the surface
    down and cuts the cortex at a right angle, as a sulcus does.
    """
    step, half = width / 4.0, (90, 110, 100)
    white = rng.standard_normal([int(2 * h / step) for h in half], dtype=np.float32)
    noise = ndimage.gaussian_filter(white, 1.5) - ndimage.gaussian_filter(white, 2.6)
    radius = np.sqrt((p[0] / 62) ** 2 + ((p[1] + 16) / 80) ** 2 + (p[2] / 66) ** 2)
    outward = 1 / np.clip(radius, 0.55, None) ** 0.75
    centre = (0, -16, 0)
    index = [((c - c0) * outward + h) / step for c, c0, h in zip(p, centre, half, strict=True)]
    value = ndimage.map_coordinates(noise, index, order=1, mode="reflect", output=np.float32)
    slope2 = sum(np.gradient(value, step_mm, axis=axis) ** 2 for axis, step_mm in enumerate(spacing))
    return np.abs(value) / np.sqrt(slope2 + 0.1 * slope2.mean())


def _paint_soft_tissue(
    signal: np.ndarray, p: Coordinates, skin: np.ndarray, rng: np.random.Generator, spacing: Sequence[float]
) -> None:
    """Scalp, face, orbits and skull base: everything between the skin and the intracranial space."""
    texture = smooth_noise(signal.shape, spacing, 7, rng)
    fat = rng.uniform(1.1, 2.8) * (1 + 0.08 * smooth_noise(signal.shape, spacing, 25, rng))
    _paint(signal, 0.9, skin)
    _paint(signal, fat, skin - 1.6, 1.5)
    deep = np.clip(0.7 + 0.5 * texture, 0.08, 1.5)
    _paint(signal, deep, np.minimum(skin - 7, -p[2] - 8), 3.0)
    _paint(signal, 0.06, np.minimum(anatomy.ellipsoid(p, (0, 58, -36), (13, 22, 18)), 5 * texture + 4))  # air cells
    orbit = (np.abs(p[0]), p[1], p[2])
    _paint(signal, 0.85 * fat, anatomy.ellipsoid(orbit, (31, 52, -31), (17, 30, 15)), 1.5)
    _paint(signal, 0.75, anatomy.ellipsoid(orbit, (27, 45, -31), (3, 22, 3)))  # optic nerve
    globe = anatomy.ellipsoid(orbit, (32, 66, -31), (12, 12, 12))
    _paint(signal, 0.8, globe)
    _paint(signal, 0.2, globe - 1.2)
    _paint(signal, 0.6, anatomy.ellipsoid(orbit, (32, 75, -31), (5, 2, 5)))  # lens


def _paint_skull(signal: np.ndarray, intracranial: np.ndarray, thickness: np.ndarray, marrow: float) -> None:
    """Two dark tables with marrow between them, around the intracranial space; then cerebrospinal fluid inside."""
    _paint(signal, 0.06, intracranial + thickness)
    _paint(signal, marrow, np.minimum(intracranial + thickness - 1.8, -1.8 - intracranial), 1.5)
    _paint(signal, 0.06, intracranial + 1.8)
    _paint(signal, 0.2, intracranial)


def _paint_cerebrum(
    signal: np.ndarray,
    p: Coordinates,
    cerebrum: np.ndarray,
    hull: np.ndarray,
    shape: HeadShape,
    rng: np.random.Generator,
    spacing: Sequence[float],
) -> None:
    """Folded cortex, white matter and deep grey nuclei."""
    wobble = (p[0] + 1.2 * smooth_noise(signal.shape, spacing, 22, rng), p[1], p[2])
    midline = anatomy.midline_fissure(wobble)
    surface = np.minimum(hull, 1.4 * midline)
    fold_depth = np.clip(13 + 8 * smooth_noise(signal.shape, spacing, 14, rng), 2, 24)
    fold = np.hypot(_fold_distance(p, spacing, 12, rng), np.maximum(surface - fold_depth, 0))
    opening = shape.atrophy * (0.2 + 1.2 * np.exp(-np.maximum(surface, 0) / 7))
    pia = np.minimum(cerebrum, fold - opening)
    pia = np.minimum(pia, midline - 0.8 * shape.atrophy)
    pia = np.minimum(pia, anatomy.sylvian_fissure(wobble) - 0.9 * shape.atrophy)
    texture = 1 + 0.025 * smooth_noise(signal.shape, spacing, 9, rng)
    grey = rng.uniform(1.14, 1.3) * texture
    _paint(signal, grey, pia, 1.2)
    _paint(signal, texture, np.minimum(pia - 2.8 - 0.5 * smooth_noise(signal.shape, spacing, 12, rng), cerebrum - 2), 2)
    nuclei = (
        (0.9, (12, 17, 8), (5.5, 11, 11)),  # caudate
        (0.8, (26, 4, 3), (5, 16, 11)),  # putamen
        (0.4, (11, -17, 6), (9, 14, 9)),  # thalamus
        (-0.5, (18.5, 1, 1), (4, 9, 6)),  # pallidum: darker than white matter, from its iron
    )
    for contrast, centre, radii in nuclei:
        jitter = [c + rng.normal(0, 0.7) for c in centre]
        _paint(signal, texture + contrast * (grey - texture), anatomy.pair(p, jitter, radii), 2.0)


def _paint_posterior_fossa(
    signal: np.ndarray,
    p: Coordinates,
    cerebellum: np.ndarray,
    stem: np.ndarray,
    rng: np.random.Generator,
    spacing: Sequence[float],
) -> None:
    """Cerebellum with its fine folia, and brainstem."""
    rows = anatomy.slab(p, -200, 5)
    signal, cerebellum, stem = signal[..., rows], cerebellum[..., rows], stem[..., rows]
    p = tuple(c[..., rows] for c in p)
    folia = np.hypot(_fold_distance(p, spacing, 7, rng), np.maximum(cerebellum - 8, 0)) + 0.1
    texture = 1 + 0.025 * smooth_noise(signal.shape, spacing, 9, rng)
    _paint(signal, 1.18 * texture, np.minimum(cerebellum, folia), 1.6)
    _paint(signal, 1.02 * texture, cerebellum - 9 - 2.5 * smooth_noise(signal.shape, spacing, 8, rng), 4)
    _paint(signal, 1.05 * texture, stem, 1.2)


def make_anatomy(rng: np.random.Generator, shape: Sequence[int] = SHAPE, spacing: Sequence[float] = SPACING) -> Anatomy:
    """Generate one healthy subject from the skull base to the vertex.

    Args:
        rng: the only source of randomness; the same state gives the same subject.
        shape: voxels along x, y, z (right, anterior, superior).
        spacing: mm along the same axes; shape x spacing should be about 225 x 225 x 120 mm to hold a head.
    """
    head_shape = HeadShape.sample(rng)
    p = _head_coordinates(shape, spacing, rng)
    cranium = anatomy.head(p, head_shape)
    skin = np.maximum(cranium, anatomy.face(p))
    scalp = np.clip(rng.uniform(4.5, 7) + 1.2 * smooth_noise(shape, spacing, 35, rng), 2.5, None)
    bone = np.clip(rng.uniform(5, 7.5) + 0.8 * smooth_noise(shape, spacing, 30, rng), 4, None)
    inner = cranium - scalp - bone
    hull = inner - np.clip(1.5 + head_shape.atrophy + 0.5 * smooth_noise(shape, spacing, 20, rng), 0.8, None)

    cerebellum = np.minimum(anatomy.cerebellum(p), hull - 1)
    stem = anatomy.brainstem(p)
    below = np.maximum(cerebellum, stem)
    cistern = np.maximum(below + 1.0, anatomy.cisterns(p))
    cerebrum = np.minimum(np.minimum(hull, anatomy.cerebrum_base(p)), -cistern)
    brain = np.maximum(cerebrum, below)
    ventricles = anatomy.ventricles(p, head_shape.ventricle)

    signal = np.zeros(tuple(shape), np.float32, order="F")
    _paint_soft_tissue(signal, p, skin, rng, spacing)
    wall = bone - (bone - 2.5) * np.clip((hull - brain) / 8, 0, 1)  # thin at the base of the skull
    _paint_skull(signal, brain + inner - hull, wall, rng.uniform(0.2, 0.7))
    _paint_cerebrum(signal, p, cerebrum, hull, head_shape, rng, spacing)
    _paint_posterior_fossa(signal, p, cerebellum, stem, rng, spacing)
    _paint(signal, signal * rng.uniform(1.02, 1.2), ventricles + 1.5, 3.0)  # periventricular rim, normal with age
    _paint(signal, 0.17, ventricles, 1.2)
    _paint(signal, 1.1, np.minimum(anatomy.pair(p, (22, -41, 12), (1.8, 4, 4)), ventricles))  # choroid plexus
    return Anatomy(signal, (brain > 0) & (ventricles < -0.5), brain, tuple(spacing))


def acquire(signal: np.ndarray, spacing: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Simulate the scanner: point spread, receive bias field, Rician noise, and arbitrary units.

    Returns:
        int16 image of ``signal``'s shape; white matter lies near 300 to 500, as in a magnitude image from a scanner.
    """
    sigma = rng.uniform(0.4, 0.8)
    blurred = ndimage.gaussian_filter(signal, (sigma, sigma, 0))
    bias = np.exp(rng.uniform(0.04, 0.12) * smooth_noise(signal.shape, spacing, 90, rng))
    level = rng.uniform(0.015, 0.05)
    real, imaginary = level * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    magnitude = np.hypot(blurred * bias + real, imaginary)
    return np.clip(rng.uniform(300, 500) * magnitude, 0, np.iinfo(np.int16).max).round().astype(np.int16)
