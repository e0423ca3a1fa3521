"""Cosine distances that keep their digits where they are small."""

from __future__ import annotations

from torch import Tensor


def cosine_distance(first: Tensor, second: Tensor) -> Tensor:
    """``1 - cos`` of unit vectors ``[...,C]`` as half of their squared difference; 1 where one of them is zero.

    Normal patches are near their neighbours. There one minus a product has the product's absolute rounding error, which
    units of rarity (:mod:`dino_uad.detector.units`) magnify a hundredfold; the difference of the vectors has a relative
    one.
    """
    zero = (first.norm(dim=-1) == 0) | (second.norm(dim=-1) == 0)
    return ((first - second).square().sum(dim=-1) / 2).masked_fill(zero, 1)
