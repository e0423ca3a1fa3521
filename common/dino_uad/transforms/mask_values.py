"""Which pixels of a mask are marked: masks come as 0 and 1, 0 and 255, labels, JPEG, or smoothed by resampling."""

from __future__ import annotations

import torch
from torch import Tensor

BINARY = "binary"
"""Meta key of a label that has 0 and 1 only, because a transform made it so."""
LABELS = 32  # labels are whole numbers from 1 to a few dozen,
SPREAD = 8  # or a few levels far apart, as 0, 127, 255;
MANY = 4096  # more levels than that are neither
PATCHES = 0.7  # share of a label map's pixels whose neighbour has their value; of soft edges it is small
FAINT = 0.1  # of the largest value: a level below it, beside large ones, is noise of compression


def marked(mask: Tensor) -> Tensor:
    """Return where a mask marks something, as a bool tensor of its shape.

    - Two values: the larger one.
    - Labels (whole numbers up to 32, or more in patches, as of many instances; or up to 8 levels of a tenth of the
      largest or more): every value above 0.
    - Anything else (JPEG's values around 0 and 255, a label map resampled linearly): at least half of the largest.

    Decide on a whole volume, not slice by slice: a slice of a smoothed mask may hold its faint end alone.

    Args:
        mask: values of any shape; a picture's, which ``LoadScan`` divided by its type's largest, say so in their meta
            data (``unit_range``).
    """
    plain = mask.as_subclass(Tensor)
    levels = levels_of(plain)
    if levels is None:
        return plain >= float(plain.max()) / 2
    if len(levels) == 0 or levels[-1] <= 0:
        return torch.zeros_like(plain, dtype=torch.bool)
    if len(levels) == 2:
        middle = levels.mean() if plain.is_floating_point() else levels.mean().floor()
        return plain > middle.to(plain.dtype)  # of another type torch would compare a float copy of the volume
    scales = (255, 65535) if getattr(mask, "meta", {}).get("unit_range") else (1,)
    for scale in scales:
        whole = levels * scale
        if whole[-1] > 0.5 and torch.allclose(whole, whole.round(), atol=1e-2):
            smallest, largest = whole[whole > 0.5][0], whole[-1]
            spread = len(levels) <= SPREAD and smallest >= FAINT * largest
            if largest <= LABELS or spread or in_patches(plain):
                return plain > 0
    return plain >= float(levels[-1]) / 2


def in_patches(values: Tensor) -> bool:
    """Whether what is neither background nor the most frequent label lies in patches; soft edges do not.

    Told from a picture ``[1,H,W]``, or from the plane of a volume ``[1,X,Y,Z]`` that has most marks.
    """
    plane = (
        values.flatten(end_dim=-2) if values.ndim < 4 else values[0, ..., values[0].count_nonzero(dim=(0, 1)).argmax()]
    )
    levels, counts = plane.unique(return_counts=True)
    rest = ~torch.isin(plane[1:], levels[counts.argsort(descending=True)[:2]])
    return bool(rest.any()) and float((plane[1:] == plane[:-1])[rest].float().mean()) > PATCHES


def levels_of(values: Tensor) -> Tensor | None:
    """The different values, sorted; None if they are more than any label map has. A part at a time, uncopied."""
    found = torch.empty(0)
    for plane in values.unbind(-1) if values.ndim > 1 else [values]:
        found = torch.unique(torch.cat([found, plane.float().unique()]))
        if len(found) > MANY:
            return None
    return found
