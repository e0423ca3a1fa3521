"""Which patches of an image show the body, found from what the network is given and nothing else."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad.detector.groups import members
from dino_uad.settings import is_number, require
from dino_uad.tracing import is_traced

MODES = ("auto", "none", "nonzero")
BINS = 64
SAMPLED = 1 << 14  # pixels that a histogram is taken of
DARK = 0.25  # a background's mean, as a share of that of what stands before it
SURROUNDS = 0.8  # share of the image's border that is background, where there is one
RADIUS = 3  # of the closing, in pixels
COVERED = 0.25  # share of a patch's pixels that makes it foreground
LOOK = 8  # steps after which filling looks whether the last one reached anything: a GPU has to be waited for


class Foreground:
    """Finds the foreground of images; the same one wherever a detector is fitted, calibrated, applied or exported.

    Pixels above a threshold in any channel, closed by a square of 7 pixels, make a patch foreground if they cover a
    quarter of it: patches that are mostly air and skin differ more between heads than a lesion does from brain. With
    ``auto`` the threshold is Otsu's (1979) if it parts a dark background from the rest, which is asked of the image
    itself: the darker class has less than a quarter of the brighter one's mean, and it covers 80 % of the image's
    border. Background is then only what is connected with the border: ventricles, cysts and lungs within the body are
    foreground. Images without such a background (textures, pathology, most ultrasound) are all foreground.

    The slices of a volume share one threshold, because the ends of a scan show air alone: :meth:`together`.

    Args:
        mode: ``auto``, ``none`` (everything), ``nonzero`` (above 0), or an intensity in [0, 1] to be above.
    """

    def __init__(self, mode: str | float = "none") -> None:
        valid = mode in MODES or is_number(mode, 0, 1, ends="[)")
        require("foreground", mode, valid, f"one of {', '.join(MODES)}, or a threshold in [0, 1)")
        self.mode = mode

    def apart(self, images: Tensor) -> Tensor:
        """The threshold of each image ``[N,C,H,W]`` by itself, ``[N]``; minus infinity where all is foreground."""
        if self.mode != "auto":
            return images.new_full((images.shape[0],), self._fixed())
        brightest = images.amax(dim=1)
        return _dark_background(_pixels(brightest), _pixels(_frame(brightest)))

    def together(self, slices: Tensor) -> Tensor:
        """The threshold that the slices ``[N,C,H,W]`` of one volume share, ``[N]``."""
        if self.mode != "auto" or not len(slices):
            return self.apart(slices)
        brightest = slices.amax(dim=1)
        pixels, frame = (_pixels(part, len(slices)).reshape(1, -1) for part in (brightest, _frame(brightest)))
        return _dark_background(pixels, frame).expand(len(slices))

    def of_scans(self, images: Sequence[Tensor], scans: Sequence[Hashable]) -> Tensor:
        """Thresholds ``[N]`` of images ``[C,H,W]`` on the CPU, where ``scans`` says which are slices of one volume."""
        result = torch.empty(len(images))
        for places in members(scans).values():
            result[places] = self.together(torch.stack([images[i] for i in places.tolist()]).float()).cpu()
        return result

    def __call__(self, images: Tensor, grid: Sequence[int], threshold: Tensor | None = None) -> Tensor:
        """The patches ``[B,1,h,w]`` bool of ``[B,C,H,W]`` images that are foreground; none, where all is below.

        Args:
            images: intensities in [0, 1].
            grid: ``(h, w)``.
            threshold: ``[B]`` from :meth:`apart` (the default) or :meth:`together`.
        """
        if self.mode == "none":
            return images.new_ones((images.shape[0], 1, *grid), dtype=torch.bool)
        threshold = self.apart(images) if threshold is None else threshold.to(images)
        above = (images.amax(dim=1, keepdim=True) > threshold[:, None, None, None]).to(images.dtype)
        covered = F.adaptive_avg_pool2d(_closed(above), (int(grid[0]), int(grid[1]))) > COVERED
        return _without_holes(covered) if self.mode == "auto" else covered

    def _fixed(self) -> float:
        return {"none": -math.inf, "nonzero": 0.0}.get(self.mode, self.mode)


def _pixels(images: Tensor, share: int = 1) -> Tensor:
    """``[N,H,W]`` to ``[N,P]``, evenly thinned out to about ``SAMPLED / share`` pixels."""
    step = max(1, math.ceil(math.sqrt(int(images.shape[1]) * int(images.shape[2]) * share / SAMPLED)))
    return images[:, ::step, ::step].flatten(1)


def _frame(images: Tensor) -> Tensor:
    """The border of ``[N,H,W]`` images, a 64th of the smaller side wide, as ``[N,1,P]``."""
    width = max(1, min(int(side) for side in images.shape[1:]) // 64)
    rows = torch.cat([images[:, :width], images[:, -width:]], dim=1).flatten(1)
    columns = torch.cat([images[:, :, :width], images[:, :, -width:]], dim=2).flatten(1)
    return torch.cat([rows, columns], dim=1)[:, None]


def _dark_background(pixels: Tensor, frame: Tensor) -> Tensor:
    """Otsu's threshold ``[N]`` of ``[N,P]`` pixels if it parts a dark background from the rest, else minus infinity."""
    edges = torch.arange(1, BINS, dtype=pixels.dtype, device=pixels.device) / BINS
    edges = edges * pixels.amax(dim=1, keepdim=True)
    below = (pixels[:, None] <= edges[:, :, None]).to(pixels.dtype)
    share, total = below.mean(dim=2), pixels.mean(dim=1, keepdim=True)
    mass = (below @ pixels[:, :, None])[:, :, 0] / pixels.shape[1]
    between = (total * share - mass).square() / (share * (1 - share)).clamp_min(1e-6)
    best = between.argmax(dim=1, keepdim=True)
    threshold, share, mass = (part.gather(1, best) for part in (edges, share, mass))
    dark, bright = mass / share.clamp_min(1e-6), (total - mass) / (1 - share).clamp_min(1e-6)
    around = (frame <= threshold).to(pixels.dtype).mean(dim=1, keepdim=True)
    found = (dark < DARK * bright) & (around >= SURROUNDS)
    return torch.where(found, threshold, torch.full_like(threshold, -math.inf))[:, 0]


def _closed(mask: Tensor) -> Tensor:
    """Morphological closing of a 0/1 mask ``[B,1,H,W]``; what lies beyond the border counts for neither side."""
    return 1 - _grown(1 - _grown(mask))


def _grown(mask: Tensor) -> Tensor:
    """The largest of a 0/1 mask within a square: by maxima of two, four, then all, far less work than pooling."""
    grown = F.pad(mask, (RADIUS, RADIUS, RADIUS, RADIUS))
    width = 1
    while width < 2 * RADIUS + 1:
        step = min(width, 2 * RADIUS + 1 - width)
        grown = torch.maximum(grown[..., :-step], grown[..., step:])
        grown = torch.maximum(grown[..., :-step, :], grown[..., step:, :])
        width += step
    return grown


def _without_holes(mask: Tensor) -> Tensor:
    """Background ``[B,1,h,w]`` that is not connected with the border, over patches that share a side, is foreground."""
    free = (~mask).float()
    outside = F.pad(torch.zeros_like(free), (1, 1, 1, 1), value=1.0)
    free = F.pad(free, (1, 1, 1, 1), value=1.0)
    # A fixed number of steps at most, so that it can be traced: enough for any way that turns back no more than twice.
    for step in range(2 * (int(mask.shape[2]) + int(mask.shape[3]))):
        across = F.max_pool2d(outside, (1, 3), stride=1, padding=(0, 1))
        down = F.max_pool2d(outside, (3, 1), stride=1, padding=(1, 0))
        before, outside = outside, torch.maximum(across, down) * free
        if step % LOOK == LOOK - 1 and not is_traced() and torch.equal(outside, before):
            break
    return outside[:, :, 1:-1, 1:-1] == 0
