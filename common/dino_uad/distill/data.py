"""What a student learns from: the slices of any folder of pictures and volumes, with the teacher's features of each."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from dino_uad.backbones import DinoBackbone
from dino_uad.data import datalist
from dino_uad.embeddings import EmbeddingDataset
from dino_uad.transforms import ExtractSlicesd, InPlaneResized, LoadScand, OrientScand, ScaleToUnitd


def find_images(folder: str | Path) -> list[dict[str, str]]:
    """Every picture and volume below a folder, masks left out, as ``{"image": path}`` in natural order.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing in it that can be read.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder {folder}; give a folder of pictures or volumes to distil from")
    return [{"image": item["image"]} for item in datalist(folder, "all")]


def slice_transform(image_size: int, min_foreground: float = 0.05) -> Compose:
    """From a path to upright axial slices ``[1|3,image_size,image_size]`` in [0, 1]."""
    return Compose(
        [
            LoadScand("image"),
            OrientScand("image"),
            ScaleToUnitd("image"),
            ExtractSlicesd("image", min_foreground=min_foreground),
            InPlaneResized("image", image_size),
        ]
    )


class DistillationDataset(Dataset):
    """Images with the teacher's features: ``(image [3,H,W] uint8, embedding [C,h,w] half, cls [C])``.

    The teacher runs once per slice; its features are cached in half precision, in ``cache_dir`` too, where an
    interrupted pass goes on. Images are kept in memory with 8 bits.

    Args:
        folder: pictures and volumes.
        teacher: frozen feature extractor whose output is the target.
        image_size: height and width, a multiple of the teacher's patch.
        cache_dir: folder of the cached features; None keeps them in memory only.
        batch_size: slices per call of the teacher.
        device: where the teacher runs.
    """

    def __init__(
        self,
        folder: str | Path,
        teacher: DinoBackbone,
        image_size: int = 448,
        cache_dir: str | Path | None = None,
        batch_size: int = 8,
        device: torch.device | str = "cpu",
    ) -> None:
        if image_size % teacher.patch_size:
            raise ValueError(f"image_size {image_size} is no multiple of the teacher's patch of {teacher.patch_size}")
        self.features = EmbeddingDataset(
            find_images(folder),
            slice_transform(image_size),
            teacher,
            cache_dir=str(cache_dir) if cache_dir else None,
            batch_size=batch_size,
            device=device,
        )
        self.features.build()
        self.images = self._read_images()

    def _read_images(self) -> list[Tensor]:
        entries = tqdm(self.features.slices(), desc="reading images", unit="file")
        slices = (item["image"] for group, _ in entries for item in group)
        return [(image.expand(3, -1, -1) * 255).round().to(torch.uint8) for image in slices]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        record = self.features[index]
        return self.images[index], record["embedding"], record["cls"]

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Stack the given slices: images ``[B,3,H,W]`` float in [0, 1], embeddings ``[B,C,h,w]`` and cls ``[B,C]``."""
        images, embeddings, cls = (torch.stack(parts) for parts in zip(*map(self.__getitem__, indices), strict=True))
        return images.float() / 255, embeddings.float(), cls.float()
