"""Inference with a 2-D network on images and on volumes, slice by slice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from tqdm import tqdm

from dino_uad.detector import AnomalyDetector
from dino_uad.inferers.slice_summary import SUMMARY, not_run, predict
from dino_uad.settings import require_count

WIDEST = 1000
"""Slices: a Gaussian that is wider than any scan is a mean, and its weights alone would fill the memory."""


def smoothing_width(value: Any) -> float:
    """The standard deviation of the smoothing in slices; MONAI Label may send it as a string.

    Raises:
        ValueError: it is no number from 0 to :data:`WIDEST`.
    """
    try:
        width = float(value)
    except (TypeError, ValueError):
        width = math.nan
    if not 0 <= width <= WIDEST:
        raise ValueError(f"smoothing {value!r} found; expected a number of slices from 0 to {WIDEST}")
    return width


def occupied_slices(volume: Tensor) -> Tensor:
    """Numbers ``[n]`` of the slices of ``[C,H,W,D]`` along the last axis that have anything above 0."""
    return (volume > 0).flatten(0, 2).any(dim=0).nonzero().flatten()


class SliceOrImageInferer(Inferer):
    """Runs a 2-D network on ``[B,C,H,W]`` images, or on every slice along the last axis of ``[B,C,H,W,D]`` volumes.

    MONAI's ``SliceInferer`` needs volumes and runs the network on empty slices too. Here slices without foreground
    (nothing above 0) are not run and score zero, and only ``batch_size`` slices are on the device at a time. The slices
    of a volume share the threshold of their foreground, if the network is a detector; an exported one takes each alone.

    Args:
        batch_size: slices per network call.
        smoothing: standard deviation, in slices, of a Gaussian along the occupied slices of the map; 0 is off.
        progress: show a progress bar over the slices of a volume.
    """

    def __init__(self, batch_size: int = 8, smoothing: float = 0.0, progress: bool = False) -> None:
        require_count("batch_size", batch_size)
        self.batch_size = batch_size
        self.smoothing = smoothing_width(smoothing)
        self.progress = progress

    def settings(self) -> dict[str, Any]:
        """What maps depend on."""
        return {"smoothing": self.smoothing}

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args, **kwargs) -> Tensor:
        """Return the maps, ``[B,1,H,W]`` or ``[B,1,H,W,D]`` float32, with the device and meta data of ``inputs``.

        The meta data of a detector's maps also hold its numbers a slice (:data:`~dino_uad.inferers.SUMMARY`).
        """
        if inputs.ndim not in (4, 5):
            raise ValueError(f"input of shape {list(inputs.shape)} found; expected [B,C,H,W] or [B,C,H,W,D]")
        plain = inputs.as_subclass(Tensor)
        if inputs.ndim == 4:
            result, numbers = predict(network, plain, *args, **kwargs)
            numbers = None if numbers is None else numbers[:, None]
        else:
            maps, rows = zip(*(self._volume(volume, network, *args, **kwargs) for volume in plain), strict=True)
            result, numbers = torch.stack(maps), None if rows[0] is None else torch.stack(rows)
        # Invertd brings back only what is a MetaTensor.
        result = convert_to_dst_type(result, inputs, dtype=torch.float32)[0]
        if isinstance(result, MetaTensor) and numbers is not None:
            result.meta[SUMMARY] = numbers
        return result

    def _volume(self, volume: Tensor, network: Callable[..., Tensor], *args, **kwargs) -> tuple[Tensor, Tensor | None]:
        """The map ``[1,H,W,D]`` and the slices' summaries ``[D,2+T]``."""
        result = torch.zeros((1, *volume.shape[1:]), dtype=torch.float32, device=volume.device)
        occupied = occupied_slices(volume)
        numbers = not_run(volume.shape[-1], network) if hasattr(network, "predict") else None
        threshold = _shared_threshold(network, volume, occupied)
        bar = tqdm(total=len(occupied), desc="slices", unit="slice", disable=not self.progress)
        for chunk in occupied.split(self.batch_size) if len(occupied) else ():
            slices = volume[..., chunk].movedim(-1, 0)
            if threshold is not None:
                kwargs["threshold"] = threshold.expand(len(chunk))
            maps, rows = predict(network, slices, *args, **kwargs)
            result[..., chunk] = maps.movedim(0, -1).to(result)
            if numbers is not None:
                numbers[chunk.cpu()] = rows
            bar.update(len(chunk))
        bar.close()
        if self.smoothing > 0 and result.shape[-1] > 1:
            smooth = gaussian_filter1d(result[..., occupied].cpu().numpy(), self.smoothing, axis=-1, mode="nearest")
            result[..., occupied] = torch.from_numpy(smooth).to(result)
        return result, numbers


def _shared_threshold(network: Callable[..., Tensor], volume: Tensor, occupied: Tensor) -> Tensor | None:
    """The threshold ``[1]`` of the foreground of a volume's occupied slices; None where the network finds none."""
    if not isinstance(network, AnomalyDetector) or not len(occupied):
        return None
    return network.foreground.together(volume[..., occupied].movedim(-1, 0).float())[:1]
