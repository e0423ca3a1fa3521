"""Generated heads of a few slices, stored with different axes."""

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from scans import write_nifti

SHAPE = (44, 52, 8)
ORIENTATIONS = ("RAS", "LPS", "PIR", "RPI", "oblique")


def head(seed: int, lesion: bool = False) -> np.ndarray:
    """An ellipsoid with texture between two empty slices, in canonical orientation; values as of a scanner."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    inside = ((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1) & (abs(z) < 0.9)
    texture = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2)
    values = 400 + 1500 * texture
    if lesion:
        values[(x - 0.3) ** 2 + (y - 0.2) ** 2 + z**2 < 0.05] += 500
    return np.where(inside, values.clip(50), 0).astype(np.float32)


def canonical_affine() -> np.ndarray:
    affine = np.diag([1.1, 0.9, 3.0, 1.0])
    affine[:3, 3] = (-20, -31.5, 12)
    return affine


def write_oriented(path: Path, array: np.ndarray, orientation: str) -> None:
    """The same head stored with other axes, or turned in space."""
    image = nib.Nifti1Image(array, canonical_affine())
    if orientation == "oblique":
        (c, s), (d, t) = ((np.cos(angle), np.sin(angle)) for angle in (0.3, 0.2))
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])
        affine = canonical_affine()
        affine[:3] = turn @ affine[:3]
        image = nib.Nifti1Image(array, affine)
    else:
        target = nib.orientations.axcodes2ornt(orientation)
        image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), target))
    write_nifti(path, np.asarray(image.dataobj), image.affine)
