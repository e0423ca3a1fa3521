"""What a scan looks like before it is scored, in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nibabel as nib
import torch
from torch import Tensor

from dino_uad.findings import ScanGrid


def looks(slices: Tensor, meta: Mapping[str, Any], axcodes: str) -> tuple[Tensor, str | None]:
    """The values of :data:`~dino_uad.detector.seen.FEATURES` ``[4]`` float64, and the file's orientation.

    Args:
        slices: ``[D,C,H,W]`` in [0, 1]; empty ones do not count.
        meta: of the image as ``LoadScand`` read it; of a picture millimetres are NaN, and there is no orientation.
        axcodes: orientation of the network's volumes, whose last letter is the direction of the slices.
    """
    means, spreads = [], []
    for one in slices:
        inside = one[one > 0].double()
        if len(inside) > 1:
            means.append(inside.mean())
            spreads.append(inside.std())
    intensity = [torch.stack(values).mean() if values else torch.tensor(torch.nan) for values in (means, spreads)]
    grid = ScanGrid.from_meta(meta, axcodes)
    if grid.affine is None:
        return torch.tensor([torch.nan, torch.nan, *intensity], dtype=torch.float64), None
    thickness = abs(float(torch.linalg.det(torch.as_tensor(grid.affine[:3, :3])))) / grid.pixel_area
    spacing = [grid.pixel_area**0.5, thickness if grid.slices > 1 else torch.nan] if grid.measured else [torch.nan] * 2
    return torch.tensor([*spacing, *intensity], dtype=torch.float64), "".join(nib.aff2axcodes(grid.affine))
