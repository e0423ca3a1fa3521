"""From the patch grid to pixels: bilinear resize and Gaussian smoothing, together one small matrix per image axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor


def upsample_scores(patch: Tensor, size: Sequence[int], sigma: float = 0.0) -> Tensor:
    """Resize patch scores to the image and smooth them, as AnomalyDINO (sec. 3) does with sigma 4.

    Bilinear with half-pixel centres and no antialiasing, then a Gaussian of ``sigma`` pixels of the *output*, truncated
    at 4 sigma, with the border mirrored including the edge sample (scipy's ``reflect``).

    Args:
        patch: ``[B,1,h,w]`` scores; half precision is computed in float32.
        size: height and width ``(H, W)`` of the result in pixels.
        sigma: standard deviation in pixels; 0 leaves the bilinear map as it is.

    Returns:
        ``[B,1,H,W]`` float32, or float64 when ``patch`` is.
    """
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be two positive numbers (H, W), found {tuple(size)}")
    if sigma < 0:
        raise ValueError(f"sigma must be 0 (no smoothing) or positive, in pixels; found {sigma}")
    if patch.dtype not in (torch.float32, torch.float64):
        patch = patch.float()
    rows, columns = (
        torch.from_numpy(_axis_matrix(int(n_in), int(n_out), float(sigma))).to(patch)
        for n_in, n_out in zip(patch.shape[-2:], size, strict=True)
    )
    return rows @ patch @ columns.T


@lru_cache(maxsize=32)
def _axis_matrix(n_in: int, n_out: int, sigma: float) -> np.ndarray:
    """``[n_out, n_in]`` matrix that resizes and smooths along one axis; both steps are linear and separable.

    Kept as an array, not a tensor: a tensor made while a model is being traced or exported must not outlive the trace.
    """
    centre = ((np.arange(n_out) + 0.5) * n_in / n_out - 0.5).clip(0, n_in - 1)
    resize = (1 - np.abs(centre[:, None] - np.arange(n_in))).clip(0)
    return gaussian_filter1d(resize, sigma, axis=0, mode="reflect", truncate=4.0) if sigma else resize
