"""The pictures that a student learns from: as they are on disk, held in the ranks' memory, and varied in every step."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from monai.transforms import Compose
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from dino_uad import parallel
from dino_uad.data import datalist, may_be_image, stack_images
from dino_uad.distill.shared_slices import SharedSlices
from dino_uad.embeddings import Slices, load_slices
from dino_uad.transforms import ExtractSlicesd, InPlaneResized, LoadScand, OrientScand, ScaleToUnitd
from dino_uad.unequal_work import unequal_work

VARIATIONS = 6
"""Numbers drawn for each slice of a batch, which :func:`vary` reads."""
_MIN_FOREGROUND = 0.05


def find_images(folder: str | Path) -> list[dict[str, str]]:
    """Every picture and volume below a folder, masks left out, as ``{"image": path}`` in natural order.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing in it that can be read.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder {folder}; give a folder of pictures or volumes to distil from")
    items = (item["image"] for item in datalist(folder, "all"))
    return [{"image": image} for image in items if not may_be_image(Path(image))]


def slice_transform(side: int) -> Compose:
    """From a path to upright axial slices ``[1|3,side,side]`` in [0, 1]."""
    return Compose(
        [
            LoadScand("image"),
            OrientScand("image"),
            ScaleToUnitd("image"),
            ExtractSlicesd("image", min_foreground=_MIN_FOREGROUND),
            InPlaneResized("image", side),
        ]
    )


def read_slices(folder: str | Path, side: int = 256, device: torch.device | str = "cpu") -> SharedSlices:
    """Slices of a folder's pictures and volumes, ``[1|3,side,side]`` uint8 on ``device``; a rank reads its share."""
    files = Slices(parallel.share(find_images(folder)), slice_transform(side))
    with unequal_work() as meet:
        loader = load_slices(files, parallel.loader_workers(device)) if len(files) else ()
        read = [
            [image.mul(255).round().to(torch.uint8).to(device) for image in loaded.slices.get("image", ())]
            for loaded in tqdm(loader, total=len(files), desc="reading", unit="file", disable=parallel.rank() > 0)
        ]
        meet()
    return SharedSlices(read, side, device)


def vary(slices: list[Tensor], size: int, drawn: Tensor) -> Tensor:
    """A batch ``[B,3,size,size]`` in [0, 1]: each slice mirrored, turned, zoomed, moved, and with another contrast.

    Args:
        slices: ``[1|3,S,S]`` uint8.
        size: of the batch.
        drawn: ``[VARIATIONS,B]``, uniform in [0, 1), that tell what is done to them.
    """
    count, device = len(slices), slices[0].device
    mirrored = 1 - 2 * (drawn[0] < 0.5).float()
    angle = math.radians(20) * (2 * drawn[1] - 1)
    zoom = 0.6 + 0.6 * drawn[2]  # of what is looked at: below 1 it is a part of the slice
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    rows = torch.stack((mirrored * cos, -sin, 0.3 * drawn[3] - 0.15, mirrored * sin, cos, 0.3 * drawn[4] - 0.15))
    images = stack_images(slices).float().div(255).expand(-1, 3, -1, -1)
    grid = F.affine_grid(rows.T.reshape(count, 2, 3).to(device), [count, 3, size, size], align_corners=False)
    images = F.grid_sample(images, grid, align_corners=False)
    gamma = (1.4 * drawn[5] - 0.7).exp().to(device)
    return images.clamp(0, 1).pow(gamma[:, None, None, None])
