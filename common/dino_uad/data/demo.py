"""The demo data set: generated FLAIR volumes with labels, and the BMAD-like slices that come out of them.

The slices walk the road of real data: the NIfTI files are loaded, oriented, scaled and cut by the same transforms.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import nibabel as nib
import numpy as np
from PIL import Image
from tqdm import tqdm

from dino_uad.data.lesions import KINDS, add_lesions
from dino_uad.data.phantom import SHAPE, SPACING, acquire, make_anatomy

ORIENTATIONS = ("RAS", "LPS", "LAS")
SLICE_RANGE = (4, 20)  # from the temporal lobes to where the brain gets small near the vertex
MIN_LESION_FRACTION = 0.002  # of a slice's pixels; what has less is neither a good nor an anomalous slice
SLICES_PER_SUBJECT = 6
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


def make_demo(
    out: str | os.PathLike[str], n_train: int = 10, n_valid: int = 7, n_test: int = 10, seed: int = 0
) -> Path:
    """Write the demo data set; the same arguments give the same bytes.

    ``out/volumes/{train,valid,test}/sub-XXX_flair.nii.gz`` are int16 volumes of 240 x 240 x 24 voxels of 0.94 x 0.94 x
    5 mm in mixed orientations, with ``sub-XXX_label.nii.gz`` for subjects with lesions: every other one of valid and
    test, none of train. ``out/slices`` holds 8-bit PNGs in the BMAD layout, at most 6 of a subject, upright.
    ``out/demo.json`` lists subjects. The folder appears only when it is complete; one made with the same arguments
    is kept.

    Args:
        out: folder to create.
        n_train: healthy subjects for training.
        n_valid: subjects for validation.
        n_test: subjects for testing.
        seed: subject k depends on (seed, k) alone.

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
    target.parent.mkdir(parents=True, exist_ok=True)
    building = target.with_name(f".{uuid4().hex[:8]}.{target.name}")
    try:
        for subject in tqdm(subjects, desc="demo data", unit="subject"):
            files = write_volume(building / "volumes" / subject.split, subject, seed)
            write_slices(building / "slices", subject, files)
        (building / MANIFEST).write_text(manifest)
        if target.exists():
            target.rmdir()  # empty, or _is_complete had refused it
        os.replace(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _manifest(subjects: Sequence[Subject], seed: int) -> str:
    entries = [asdict(subject) for subject in subjects]
    return json.dumps({"generation": GENERATION, "seed": seed, "subjects": entries}, indent=1) + "\n"


def _is_complete(target: Path, manifest: str) -> bool:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    found = target / MANIFEST
    if found.is_file() and found.read_text() == manifest:
        return True
    raise ValueError(
        f"{target}: exists and is not the demo data set of these arguments (its {MANIFEST} is missing or differs); "
        "expected a new or empty folder. Choose another folder or remove this one."
    )


def plan_subjects(n_train: int, n_valid: int, n_test: int) -> list[Subject]:
    """Number the subjects through the splits; in valid and test every other one, the first included, has a lesion."""
    kinds = list(KINDS)
    subjects, with_lesion = [], 0
    for split, count in (("train", n_train), ("valid", n_valid), ("test", n_test)):
        for index in range(count):
            lesion = None
            if split != "train" and index % 2 == 0:
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


def write_slices(root: Path, subject: Subject, files: dict[str, str]) -> None:
    """Cut one subject's volume into the PNGs of the BMAD layout."""
    from monai.transforms import Compose

    from dino_uad.transforms.intensity import ScaleToUnitd
    from dino_uad.transforms.load import LoadScand
    from dino_uad.transforms.orient import OrientScand
    from dino_uad.transforms.slices import ExtractSlicesd

    keys = tuple(files)
    start, stop = SLICE_RANGE
    road = Compose(
        [LoadScand(keys), OrientScand(keys), ScaleToUnitd("image"), ExtractSlicesd(("image", "label"), -1, start, stop)]
    )
    slices = list(road(files))
    for item in _choose(slices, bool(subject.lesion)):
        name = f"{subject.name}_{item['slice_index']:02d}.png"
        picture = np.asarray(item["image"][0])
        if subject.split == "train":
            _save(root / "train" / "good" / name, picture)
            continue
        mask = np.asarray(item["label"][0]) if subject.lesion else np.zeros_like(picture)
        folder = root / subject.split / ("Ungood" if subject.lesion else "good")
        _save(folder / "img" / name, picture)
        _save(folder / "label" / name, mask)


def _choose(slices: Sequence[dict], lesion: bool) -> Iterator[dict]:
    """At most `SLICES_PER_SUBJECT`, evenly spaced: of all slices, or of those that show enough of a lesion."""
    if lesion:
        slices = [item for item in slices if float((item["label"] > 0).float().mean()) >= MIN_LESION_FRACTION]
    count = min(SLICES_PER_SUBJECT, len(slices))
    for index in np.linspace(0, len(slices) - 1, count).round().astype(int):
        yield slices[index]


def _save(path: Path, unit: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((unit * 255).round().astype(np.uint8)).save(path)
