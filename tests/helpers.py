"""Small real parts for tests: random-weight backbone, pictures on disk, a fitted detector."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dino_uad.backbones.backbone import DinoBackbone
from dino_uad.detector.detector import AnomalyDetector
from dino_uad.embeddings.dataset import EmbeddingDataset
from dino_uad.heads.mean_distance import MeanDistanceHead
from dino_uad.measure import peak_extra_megabytes

SIZE = (56, 56)


def backbone(**kwargs) -> DinoBackbone:
    return DinoBackbone("dinov2_vits14", layers=[0], final_norm=False, weights="random", **kwargs)


def detector(**kwargs) -> AnomalyDetector:
    frozen = kwargs.pop("backbone", None) or backbone()
    head = kwargs.pop("head", None) or MeanDistanceHead(frozen.embed_dim)
    return AnomalyDetector(frozen, head, **{"image_size": SIZE, **kwargs})


def pictures(folder: Path, count: int, seed: int = 0) -> list[dict[str, str]]:
    """``count`` noise PNGs of SIZE; the data list that names them."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03d}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, SIZE, dtype=np.uint8)).save(path)
    return [{"image": str(path)} for path in paths]


def load_unit(entry: dict[str, str]) -> dict[str, torch.Tensor]:
    """The smallest preprocessing: an 8-bit grey picture to ``[1,H,W]`` in [0, 1]."""
    return {"image": torch.from_numpy(np.asarray(Image.open(entry["image"]), dtype=np.float32)[None] / 255)}


def embeddings(folder: Path, count: int, **kwargs) -> EmbeddingDataset:
    frozen = kwargs.pop("backbone", None) or backbone()
    return EmbeddingDataset(pictures(folder, count), load_unit, frozen, **kwargs)


def labelled_pictures(root: Path, size: int = 56, seed: int = 0) -> Path:
    """A BMAD-like data set of noise: 4 train, 2 valid, 2 + 2 test; the anomaly is a white square with its mask."""
    rng = np.random.default_rng(seed)

    def write(path: Path, array: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    def noise() -> np.ndarray:
        return rng.integers(20, 120, (size, size), dtype=np.uint8)

    for i in range(4):
        write(root / "train" / "good" / f"t{i}.png", noise())
    for i in range(2):
        write(root / "valid" / "good" / "img" / f"v{i}.png", noise())
        write(root / "test" / "good" / "img" / f"g{i}.png", noise())
        mask = np.zeros((size, size), dtype=np.uint8)
        mask[14:28, 14:28] = 255
        write(root / "test" / "Ungood" / "img" / f"u{i}.png", np.maximum(noise(), mask))
        write(root / "test" / "Ungood" / "label" / f"u{i}.png", mask)
    return root


def held_megabytes(call) -> float:
    """What ``call`` holds at its peak, the least of three runs: what other threads take meanwhile only adds to it."""
    return min(peak_extra_megabytes(call, torch.device("cpu")) for _ in range(3))


def notes_meetings(monkeypatch, module, events: list) -> None:
    """Note in ``events`` when a module begins work that is unequal among ranks, and when they meet."""

    @contextmanager
    def noted():
        events.append("work")
        yield lambda: events.append("meet")

    monkeypatch.setattr(module, "unequal_work", noted)


@contextmanager
def start_method(name: str) -> Iterator[None]:
    """How processes are started here by default: ``fork``, or as on macOS and Windows ``spawn``."""
    usual = multiprocessing.get_start_method()
    multiprocessing.set_start_method(name, force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(usual, force=True)
