"""Searches in which all ranks take part, although some have fewer images than others.

A bank that is divided over the ranks is searched by all of them together. Before each search every rank says whether it
brings images, and of which grid; one that has no more goes on helping, without images, until nobody has any.
"""

from __future__ import annotations

import torch

from dino_uad.parallel import gather_rows


def take_part(grid: tuple[int, int] | None, device: torch.device) -> tuple[int, int] | None:
    """Say what this rank brings to the next search, and hear what the others do.

    Args:
        grid: height and width of the images' patches; None without images.
        device: where the ranks exchange it.

    Returns:
        The grid of the images that are searched for; None when no rank has any.
    """
    mine = torch.tensor([grid or (0, 0)], device=device)
    height, width = gather_rows(mine).amax(dim=0).tolist()
    return (height, width) if height else None
