"""What a student's last block learns from: tokens of a frozen teacher, before that block and behind a later one."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.transforms import Compose
from torch import Tensor

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


class BlockPairs:
    """Tokens that enter the student's last block and those that it shall give, of the slices in a folder.

    The teacher runs over each slice for either; its tokens are cached in half precision, where an interrupted pass goes
    on. Images that were changed are other images, with tokens of their own: write them into the folder.

    Args:
        folder: pictures and volumes.
        before: the teacher, read behind the last block that the student takes over.
        behind: the teacher, read behind the block that the student's last one shall stand for.
        image_size: height and width, a multiple of the teacher's patch.
        cache_dir: folder of the cached tokens.
        batch_size: slices per call of the teacher.
        device: where the teacher runs.

    Raises:
        ValueError: the size is no multiple of the patch; nothing to read in the folder.
    """

    def __init__(
        self,
        folder: str | Path,
        before: DinoBackbone,
        behind: DinoBackbone,
        image_size: int,
        cache_dir: str | Path,
        batch_size: int = 8,
        device: torch.device | str = "cpu",
    ) -> None:
        if image_size % behind.patch_size:
            raise ValueError(f"image_size {image_size} is no multiple of the teacher's patch of {behind.patch_size}")
        self.teacher = behind
        images, transform = find_images(folder), slice_transform(image_size)
        self.before, self.behind = (
            EmbeddingDataset(images, transform, backbone, str(cache_dir), batch_size, device=device)
            for backbone in (before, behind)
        )
        self.before.build()
        self.behind.build()

    def __len__(self) -> int:
        return len(self.behind)

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Tokens ``[B,1+h*w,C]``, class token first, before the block and behind, float32."""
        before, behind = (_tokens(part.batch(indices)) for part in (self.before, self.behind))
        return before, behind

    def sample(self, slices: int) -> Tensor:
        """Targets ``[S,1+h*w,C]`` of at most ``slices`` evenly spaced slices."""
        chosen = torch.linspace(0, len(self) - 1, min(slices, len(self))).round().long().unique()
        return _tokens(self.behind.batch(chosen.tolist()))


def _tokens(record: dict[str, Tensor]) -> Tensor:
    patches = record["embedding"].float().flatten(2).transpose(1, 2)
    return torch.cat((record["cls"].float()[:, None], patches), dim=1)
