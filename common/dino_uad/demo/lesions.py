"""Generated lesions with masks, put into a healthy ``Anatomy`` before acquisition.

A lesion is an ellipsoid whose surface is displaced by smooth noise, blended into the noise-free signal with an edge
from sharp to diffuse. Contrast is drawn so that many lesions are darker than scalp fat and some barely brighter than
cortex: intensity alone must not solve the demo.
"""

from dataclasses import dataclass

import numpy as np

from dino_uad.demo.anatomy import ellipsoid
from dino_uad.demo.phantom import Anatomy
from dino_uad.demo.smooth_fields import smooth_noise


@dataclass(frozen=True)
class LesionKind:
    """Ranges from which the lesions of one subject are drawn; lengths in mm, signal relative to white matter."""

    count: tuple[int, int]
    radius: tuple[float, float]
    depth: tuple[float, float]  # of the centre, below the brain's hull
    signal: tuple[float, float]
    edge: tuple[float, float]  # width of the transition
    halo: float = 0.0  # width of the oedema around the lesion, as a share of its radius
    core: tuple[float, float] | None = None  # signal of a necrotic or cystic centre


KINDS = {
    "tumour": LesionKind((1, 1), (16, 28), (10, 35), (1.35, 1.85), (2, 6)),
    "tumour_with_oedema": LesionKind((1, 1), (10, 18), (12, 35), (1.5, 2.0), (1.5, 4), halo=0.9),
    "cystic": LesionKind((1, 1), (13, 22), (12, 35), (1.4, 1.9), (1.5, 3), core=(0.25, 0.6)),
    "infarct": LesionKind((1, 2), (12, 22), (3, 12), (1.4, 1.8), (1.5, 4)),
    "demyelination": LesionKind((3, 7), (3, 8), (18, 40), (1.45, 1.9), (1, 2.5)),
    "faint": LesionKind((1, 2), (12, 20), (8, 30), (1.22, 1.4), (3, 7)),
}


def _centre(candidates: np.ndarray, anatomy: Anatomy, rng: np.random.Generator) -> list[float]:
    """A random voxel of ``candidates`` (flat indices), in mm from the volume's first voxel."""
    index = np.unravel_index(candidates[rng.integers(candidates.size)], anatomy.brain.shape)
    return [float(i * step) for i, step in zip(index, anatomy.spacing, strict=True)]


def _lesion_depth(anatomy: Anatomy, centre: list[float], radius: float, rng: np.random.Generator) -> np.ndarray:
    """Depth (mm) inside one noise-warped ellipsoid, defined on the whole volume."""
    shape, spacing = anatomy.brain.shape, anatomy.spacing
    grid = np.meshgrid(
        *(np.arange(n, dtype=np.float32) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"
    )
    radii = radius * rng.uniform(0.75, 1.25, 3)
    warp = 0.16 * radius * smooth_noise(shape, spacing, max(0.8 * radius, 5.0), rng)
    return ellipsoid(tuple(grid), centre, radii.tolist()) + warp


def add_lesions(
    anatomy: Anatomy, rng: np.random.Generator, kind: LesionKind | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Blend the lesions of one subject into its signal.

    Args:
        anatomy: a healthy subject; left unchanged.
        rng: the only source of randomness.
        kind: one of ``KINDS``; drawn at random if not given.

    Returns:
        The signal with lesions, float32 [X,Y,Z], and the mask, bool [X,Y,Z]: where at least half of a voxel's signal is
        lesion or oedema, inside the brain.
    """
    if kind is None:
        kind = list(KINDS.values())[rng.integers(len(KINDS))]
    signal, mask = anatomy.signal.copy(), np.zeros(anatomy.brain.shape, bool)
    inside = anatomy.brain & (anatomy.depth > kind.depth[0]) & (anatomy.depth < kind.depth[1])
    inside[:, :, : anatomy.brain.shape[2] // 5] = False  # not in the skull-base slices, where few data sets look
    candidates = np.flatnonzero(inside)
    texture = 1 + 0.06 * smooth_noise(signal.shape, anatomy.spacing, 8, rng)
    effaced = np.clip(anatomy.signal, 0.3, 1)  # sulci and the midline fissure stay visible through a lesion
    for _ in range(rng.integers(kind.count[0], kind.count[1] + 1)):
        radius, edge = rng.uniform(*kind.radius), rng.uniform(*kind.edge)
        depth = _lesion_depth(anatomy, _centre(candidates, anatomy, rng), radius, rng)
        value = rng.uniform(*kind.signal)
        layers = [(depth, value, edge)]
        if kind.halo:
            layers.insert(0, (depth + kind.halo * radius, 0.45 + 0.55 * value, 2 * edge))
        if kind.core:
            layers.append((depth - rng.uniform(0.25, 0.5) * radius, rng.uniform(*kind.core), edge))
        for layer_depth, layer_value, layer_edge in layers:
            alpha = np.clip(layer_depth / layer_edge + 0.5, 0, 1) * anatomy.brain
            mask |= alpha >= 0.5
            signal += alpha * effaced * (layer_value * texture - signal)
    return signal, mask
