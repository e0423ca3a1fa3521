"""The demo data set: generated FLAIR volumes with labels, and the BMAD-like slices that come out of them.

The slices walk the road of real data: ``prepare`` makes them from the NIfTI files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm import tqdm

from dino_uad.data import prepare
from dino_uad.demo.lesions import KINDS, add_lesions
from dino_uad.demo.phantom import SHAPE, SPACING, acquire, make_anatomy
from dino_uad.files import new_folder

ORIENTATIONS = ("RAS", "LPS", "LAS")
SLICES = {"start": 4, "stop": 20, "stride": 2}  # from the temporal lobes to where the brain gets small at the vertex
MANIFEST = "demo.json"
GENERATION = 1  # raise it whenever the same arguments give other images, so that an older set is not taken for new


@dataclass(frozen=True)
class Subject:
    """One generated subject: where it goes and what it has."""

    number: int
    split: str
    lesion: str | None
    orientation: str

    @property
    def name(self) -> str:
        return f"sub-{self.number:03d}"


def make_demo(out: str | os.PathLike[str], n_train: int = 8, n_valid: int = 6, n_test: int = 9, seed: int = 0) -> Path:
    """Write the demo data set; the same arguments give the same bytes.

    ``out/volumes/{train,valid,test}/sub-XXX_flair.nii.gz`` are int16 volumes of 240 x 240 x 24 voxels of 0.94 x 0.94 x
    5 mm in mixed orientations, with ``sub-XXX_label.nii.gz`` for subjects with lesions: two of three in valid and
    test, none in train. ``out/slices`` holds 8-bit PNGs in the BMAD layout, 8 of each subject, upright.
    ``out/demo.json`` lists the subjects. The folder appears only when it is complete; one made with the same arguments
    is kept.

    Args:
        out: folder to create.
        n_train: healthy subjects for training.
        n_valid: subjects for validation.
        n_test: subjects for testing.
        seed: subject k draws from a generator seeded with (seed, k).

    Returns:
        ``out``.

    Raises:
        ValueError: a count below 1, or ``out`` holds something else.
    """
    if min(n_train, n_valid, n_test) < 1:
        raise ValueError(f"n_train {n_train}, n_valid {n_valid}, n_test {n_test}: expected at least 1 each")
    target = Path(out)
    subjects = plan_subjects(n_train, n_valid, n_test)
    manifest = _manifest(subjects, seed)
    if _is_complete(target, manifest):
        return target
    with new_folder(target) as building:
        for subject in tqdm(subjects, desc="generate demo volumes", unit="volume"):
            write_volume(building / "volumes" / subject.split, subject, seed)
        prepare(str(building / "volumes"), str(building / "slices"), **SLICES)
        (building / MANIFEST).write_text(manifest, encoding="utf-8")
    return target


def _manifest(subjects: Sequence[Subject], seed: int) -> str:
    entries = [asdict(subject) for subject in subjects]
    return json.dumps({"generation": GENERATION, "seed": seed, "subjects": entries}, indent=1) + "\n"


def _is_complete(target: Path, manifest: str) -> bool:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    found = target / MANIFEST
    if found.is_file() and found.read_text(encoding="utf-8") == manifest:
        return True
    raise ValueError(
        f"{target}: exists and is not the demo data set of these arguments (its {MANIFEST} is missing or differs); "
        "expected a new or empty folder. Choose another folder or remove this one."
    )


def plan_subjects(n_train: int, n_valid: int, n_test: int) -> list[Subject]:
    """Number the subjects through the splits; in valid and test all but every third one have lesions."""
    kinds = list(KINDS)
    subjects, with_lesion = [], 0
    for split, count in (("train", n_train), ("valid", n_valid), ("test", n_test)):
        for index in range(count):
            lesion = None
            if split != "train" and index % 3 != 2:
                lesion, with_lesion = kinds[with_lesion % len(kinds)], with_lesion + 1
            number = len(subjects) + 1
            subjects.append(Subject(number, split, lesion, ORIENTATIONS[number % len(ORIENTATIONS)]))
    return subjects


def write_volume(folder: Path, subject: Subject, seed: int) -> dict[str, str]:
    """Generate one subject and write its image, and its label if it has lesions; return the paths by key."""
    rng = np.random.default_rng([seed, subject.number])
    anatomy = make_anatomy(rng)
    arrays = {}
    signal = anatomy.signal
    if subject.lesion:
        signal, mask = add_lesions(anatomy, rng, KINDS[subject.lesion])
        arrays["label"] = mask.astype(np.uint8)
    arrays["image"] = acquire(signal, anatomy.spacing, rng)
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -(np.asarray(SHAPE) - 1) / 2 * SPACING
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(subject.orientation)
    )
    paths = {}
    for key, array in arrays.items():
        image = nib.Nifti1Image(array, affine).as_reoriented(turn)
        image.header.set_xyzt_units("mm")
        paths[key] = str(folder / f"{subject.name}_{'flair' if key == 'image' else 'label'}.nii.gz")
        nib.save(image, paths[key])
    return paths
