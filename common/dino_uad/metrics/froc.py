"""Free-response ROC: the share of lesions that are found, against false findings a scan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from scipy import ndimage
from torch import Tensor

from dino_uad.detector import finding_peaks
from dino_uad.findings import components
from dino_uad.metrics.maps import Maps, volumes_of, warn_undefined
from dino_uad.parallel import all_reduce_sum, gather_rows

RATES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
CAMELYON = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
CELLS = 32
"""Peaks are told apart on a grid of at most so many cells a side, about that of the patches a map is made of."""
PEAKS = 64
"""A scan's highest false findings that are kept; more than any point of the curve needs."""


class FROC(Metric):
    """``lesion_sensitivity_at_0.1`` and so on: share of lesions found with that many false findings a scan.

    A lesion is a connected region of a mask (8- or, in volumes, 26-connected); it is found at a threshold that one of
    its scores reaches. A false finding is a local maximum of the map away from any lesion that reaches it (the marks of
    CAMELYON16 and LUNA16); there are at least as many as false connected places. ``froc`` is the mean sensitivity at
    1/4, 1/2, 1, 2, 4 and 8 false findings a scan (CAMELYON16, Bejnordi et al. 2017). With a calibrated threshold also
    ``lesion_sensitivity`` there, and the ``false_findings_per_normal_scan`` that it comes to.

    A scan is a picture, or the slices of a volume, which one batch holds all of, in order. Memory: four bytes a lesion,
    and at most ``4 * PEAKS`` a scan.

    Args:
        threshold: of the free-response operating point, or a function that returns it; None or NaN leaves it out.
        output_transform: from the engine's output to ``(y_pred, y, scans)``: maps and masks, ``[B,1,H,W]`` or lists of
            ``[1,H,W]``, and for each the volume it is a slice of, None for a picture.
        device: on which processes exchange counts.
    """

    def __init__(
        self,
        threshold: float | Tensor | Callable[[], Tensor] | None = None,
        output_transform: Callable = lambda output: output,
        device: str | torch.device = "cpu",
    ) -> None:
        self.threshold = threshold
        super().__init__(output_transform, device, skip_unrolling=True, metrics_result_mode="flatten")

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all scans."""
        self._lesions: list[Tensor] = []
        self._false: list[Tensor] = []
        self._normal_false: list[Tensor] = []
        self._scans = torch.zeros(2, dtype=torch.float64)  # all, normal ones

    @reinit__is_reduced
    def update(self, output: tuple[Maps, Maps, Sequence[str | None]]) -> None:
        """Add the scans of a batch; raises :class:`ValueError` for unequal shapes or scores that are not finite."""
        for scores, mask in volumes_of(*output):
            self._add(scores, mask)

    def _add(self, scores: Tensor, mask: Tensor) -> None:
        """One scan: scores and mask ``[D,H,W]``."""
        if not all(map(math.isfinite, scores.aminmax())):
            raise ValueError("anomaly scores contain NaN or Inf, expected finite numbers")
        labels, count = components(mask.numpy(), True)
        values = scores.float().numpy()
        places = enumerate(ndimage.find_objects(labels), start=1)
        highest = [values[place].max(where=labels[place] == k, initial=-np.inf) for k, place in places]
        self._lesions.append(torch.tensor(highest, dtype=torch.float32))
        grid = [min(side, CELLS) for side in scores.shape[1:]]
        cells = F.adaptive_max_pool2d(scores.float()[:, None], grid)[:, 0]
        # Slice by slice: a scan may have 10^8 voxels.
        near = torch.cat([F.adaptive_max_pool2d(plane[None].float(), grid) for plane in mask]) > 0
        peaks = finding_peaks(cells.masked_fill(near, -torch.inf))
        peaks = peaks[peaks > cells.min()][:PEAKS]  # a map that is flat has none
        self._false.append(peaks)
        if not count:
            self._normal_false.append(peaks)
        self._scans += torch.tensor([1.0, float(not count)])

    def compute(self) -> dict[str, float]:
        """Sensitivities over all processes; NaN, with a warning, without a lesion."""
        lesions, false, normal = (
            gather_rows(torch.cat([torch.zeros(0), *parts]).to(self._device)).cpu()
            for parts in (self._lesions, self._false, self._normal_false)
        )
        (scans,) = all_reduce_sum(self._scans.clone().to(self._device))
        total, normal_scans = scans.tolist()
        result = {
            f"lesion_sensitivity_at_{rate:g}": _sensitivity(lesions, threshold_for(false, rate * total))
            for rate in RATES
        }
        result["froc"] = float(np.mean([result[f"lesion_sensitivity_at_{rate:g}"] for rate in CAMELYON]))
        found = self.threshold() if callable(self.threshold) else self.threshold
        threshold = float("nan") if found is None else float(found)
        if threshold == threshold:
            result["lesion_sensitivity"] = _sensitivity(lesions, threshold)
            reached = int((normal >= threshold).sum())
            result["false_findings_per_normal_scan"] = reached / normal_scans if normal_scans else float("nan")
        warn_undefined(result, "found no lesion, or no normal scan, expected at least one of each")
        return result


def threshold_for(false: Tensor, allowed: float) -> float:
    """The lowest threshold that at most ``allowed`` of the scores reach, ties included."""
    count = int(allowed + 1e-9)
    if count >= len(false):
        return -float("inf")
    first_too_many = false.sort(descending=True).values[count]
    return float(torch.nextafter(first_too_many, torch.tensor(torch.inf)))


def _sensitivity(lesions: Tensor, threshold: float) -> float:
    return float((lesions >= threshold).double().mean()) if len(lesions) else float("nan")
