"""What a student is asked for: the tokens of its teacher, of weights that are rounded as they will be shipped."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dino_uad.backbones import rounded


def straight_through(name: str, weight: Tensor) -> Tensor:
    """A weight as it will be shipped, with the gradient of the weight itself (Bengio et al. 2013, section 4)."""
    given = weight.detach()
    used = rounded(name, given)
    return weight if used is given else weight + (used - given)


def feature_loss(found: Tensor, target: Tensor, spread: Tensor) -> Tensor:
    """Share of the variance that is missed, plus the smooth L1 of standardised channels, of unit vectors.

    Heads compare tokens of unit length. A few channels have most of their variance; standardised, all of them count.

    Args:
        found: tokens ``[...,C]`` of any length.
        target: the teacher's, likewise.
        spread: standard deviation ``[C]`` of the target's unit vectors.
    """
    error = F.normalize(found, dim=-1) - F.normalize(target, dim=-1)
    return missed_share(error, spread) + F.smooth_l1_loss(error / spread, torch.zeros_like(error))


def missed_share(error: Tensor, spread: Tensor) -> Tensor:
    """Share of the variance of unit vectors that an error ``[...,C]`` of them amounts to; ``spread`` as above."""
    return error.square().sum(dim=-1).mean() / spread.square().sum()
