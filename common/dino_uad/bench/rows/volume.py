"""Memory of inference and evaluation of one volume, by its size."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from dino_uad.bench.row import Row
from dino_uad.bench.settings import Settings
from dino_uad.bundle_run import configured, run_steps
from dino_uad.demo import smooth_noise
from dino_uad.measure import MEGABYTE, peak_extra_megabytes

BUNDLE = "dino_ad"  # a head that takes next to nothing
SIDE = 112  # of the network's input
TINY = {"network_def#backbone#arch": "dino_uad_tiny14", "network_def#backbone#weights": "random"}
AIM = 3  # times a volume's float32 size


def volume(settings: Settings) -> Row:
    """Peak memory of the two workflows on a small and a large volume with a lesion."""
    shapes = settings.size(((512, 512, 20), (512, 512, 200)), ((64, 64, 8), (64, 64, 24)))
    row = Row("volume", "Memory of one volume", {"voxels": shapes, "network input": SIDE}, settings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = [_data_set(folder / f"{shape[2]} slices", shape) for shape in shapes]
        run = partial(_run, folder / "models", settings.device)
        run("train", data[0])
        sizes = [4 * np.prod(shape) / MEGABYTE for shape in shapes]
        for workflow in ("inference", "evaluate"):
            run(workflow, data[0])  # what is imported once
            small, large = (peak_extra_megabytes(partial(run, workflow, place), settings.device) for place in data)
            growth = (large - small) / (sizes[1] - sizes[0])
            row.figure(f"{workflow}, growth of the peak by that of the volume", growth, "×", at_most=AIM)
            row.figure(f"{workflow}, peak extra memory of a volume of {sizes[1]:.0f} MB", large, "MB")
    row.notes.append("Volumes are int16 NIfTI files; their size is that in float32.")
    return row


def write_head(path: Path, shape: Sequence[int], seed: int, lesion: Path | None = None) -> None:
    """Write a textured ellipsoid as NIfTI and, to ``lesion``, the mask of a bright ball that is then inside it."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side, dtype=np.float32) for side in shape), indexing="ij", sparse=True)
    noise = rng.standard_normal(shape, dtype=np.float32)
    signal = 500 + 60 * smooth_noise(shape, (1, 1, 1), max(shape) / 8, rng) + 20 * noise
    ball = (x - 0.3) ** 2 + (y + 0.2) ** 2 + z**2 < 0.04
    if lesion is not None:
        signal += 300 * ball
        _write(lesion, ball.astype(np.uint8))
    _write(path, np.where(x**2 + y**2 + z**2 < 0.9, signal, 0).astype(np.int16))


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0])), path)


def _data_set(folder: Path, shape: Sequence[int]) -> Path:
    """A few small normal volumes and one test volume of this shape."""
    for i in range(4):
        write_head(folder / ("train" if i < 2 else "valid") / "good" / f"case{i}.nii", (64, 64, 16), seed=i)
    place = folder / "test" / "Ungood"
    write_head(place / "img" / "case.nii", shape, seed=9, lesion=place / "label" / "case.nii")
    return folder


def _run(folder: Path, device: torch.device, workflow: str, data: Path) -> None:
    """One workflow of the bundle, in this process."""
    own = {"resume": False} if workflow == "inference" else {}
    where = data / "test" / "Ungood" / "img" if workflow == "inference" else data
    run_steps(configured(BUNDLE, workflow, folder, where, SIDE, device=device, **TINY, **own))
