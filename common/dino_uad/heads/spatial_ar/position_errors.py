"""The usual error of every position of the grid: the first tokens have no context, and are always predicted badly."""

from __future__ import annotations

import torch
from torch import Tensor

from dino_uad import parallel

# Mean errors by position are shrunk towards the overall mean as if this many images had been seen there with it. An
# error averages hundreds of channels, so few images tell the mean of a position; positions never seen need the one.
PRIOR_IMAGES = 1


class PositionErrors:
    """Gathers the errors of normal images, of all ranks, by position."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    def add(self, error: Tensor, mask: Tensor | None = None) -> None:
        """Add error maps ``[B,1,h,w]``, at the positions where ``mask`` (bool, same shape) is true; all when None."""
        error = error.double()
        weight = torch.ones_like(error) if mask is None else mask.to(error)
        sums = torch.cat([(error * weight).sum(dim=0), weight.sum(dim=0)])
        self._sums = sums if self._sums is None else self._sums + sums

    def take_mean(self) -> Tensor:
        """The mean error by position ``[1,h,w]`` float32, and start again; positions never seen get the overall mean.

        Raises:
            RuntimeError: there was no image, or no position counted.
        """
        if self._sums is None:
            raise RuntimeError("end_calibration without calibrate_batch: the validation data gave no batch")
        # Buffers must not be inference tensors, or the head could not be trained on or traced afterwards.
        with torch.inference_mode(False), torch.no_grad():
            total, count = parallel.all_reduce_sum(self._sums.clone())[0]
            if count.sum() == 0:
                raise RuntimeError("no valid patch in the normal validation images: nothing to calibrate scores on")
            overall = total.sum() / count.sum()
            mean = (total + PRIOR_IMAGES * overall) / (count + PRIOR_IMAGES)
            self._sums = None
            return mean.clamp_min(torch.finfo(torch.float32).tiny)[None].float()


def calibrated(error: Tensor, usual: Tensor) -> Tensor:
    """Scale positions of ``[B,1,h,w]`` whose usual error ``[1,h,w]`` is above the mean of all down to that mean.

    Those below are left alone: there, mostly background, dividing would magnify noise.

    Raises:
        ValueError: the grids differ.
    """
    if tuple(error.shape[-2:]) != tuple(usual.shape[-2:]):
        raise ValueError(
            f"grid of {tuple(error.shape[-2:])} patches found, the scores were calibrated on "
            f"{tuple(usual.shape[-2:])}; use the image size of the fit"
        )
    typical = usual.mean()
    return error * (typical / usual.clamp_min(typical))
