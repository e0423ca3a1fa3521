"""Foreground of an image from the first principal component of its own patches (AnomalyDINO, sec. 3.3)."""

from __future__ import annotations

import logging
import math

import torch
from monai.transforms.utils_morphological_ops import dilate, erode
from torch import Tensor

from dino_uad.heads.masking import nonempty_mask

THRESHOLD = 10.0
"""On the projection, as published: for embeddings of the last block with its norm (43 to 53 long in FLAIR slices)."""
BORDER = 0.2
"""Share of the height and width that is cut off on every side to get the central crop, as published."""
CENTRAL_SHARE = 0.35
"""Share of the central crop that the object is expected to exceed, as published."""

logger = logging.getLogger(__name__)


def warn_short(embeddings: Tensor) -> None:
    """Say so if ``[B,C,h,w]`` embeddings are too short for any patch to reach the threshold.

    Centred, none is longer than twice the longest: as unit vectors, or averaged over neighbours, all are foreground.
    """
    longest = float(embeddings.float().norm(dim=1).max()) if embeddings.numel() else math.inf
    if 2 * longest <= THRESHOLD:
        logger.warning(
            f"foreground 'pca' is a threshold of {THRESHOLD:g} on embeddings as the last block gives them; these are "
            f"at most {longest:.3g} long, so that every patch is foreground. Use the settings of paper.json, or leave "
            "foreground out"
        )


def pca_foreground(embeddings: Tensor) -> Tensor:
    """Patches whose first principal component exceeds :data:`THRESHOLD`, dilated and closed on the grid.

    The component's sign is arbitrary, and the object is expected in the middle: where no more than 35 % of the
    central crop is above the threshold, the patches below minus the threshold are taken. Unlike the published code,
    which dilates the flattened list of patches and so joins the end of a row with the start of the next, neighbours are
    those on the grid. An image where nothing remains is all foreground.

    Args:
        embeddings: ``[B,C,h,w]``, not normalised: the threshold is in their unit.

    Returns:
        ``[B,1,h,w]`` bool.
    """
    height, width = embeddings.shape[-2:]
    component = first_component(embeddings)
    above = component > THRESHOLD
    top, left = int(height * BORDER), int(width * BORDER)
    centre = above[..., top : int(height * (1 - BORDER)), left : int(width * (1 - BORDER))]
    flip = centre.float().mean(dim=(2, 3), keepdim=True) <= CENTRAL_SHARE
    mask = torch.where(flip, -component > THRESHOLD, above)
    return nonempty_mask(erode(dilate(dilate(mask))), embeddings)


def first_component(embeddings: Tensor) -> Tensor:
    """Projection of every patch on its image's first principal component, ``[B,C,h,w]`` to ``[B,1,h,w]`` float32.

    The sign is fixed so that the loading of largest magnitude is positive, whatever the eigenvalue routine returns.
    """
    rows = embeddings.double().flatten(2).transpose(1, 2)
    rows = rows - rows.mean(dim=1, keepdim=True)
    direction = torch.linalg.eigh(rows.transpose(1, 2) @ rows).eigenvectors[..., -1]
    loading = direction.gather(1, direction.abs().argmax(dim=1, keepdim=True))
    direction = direction * loading.sign()
    return (rows @ direction[..., None]).transpose(1, 2).unflatten(2, embeddings.shape[-2:]).float()
