"""Free-response ROC: the share of lesions that are found, against false findings a scan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from dino_uad.findings import components
from dino_uad.metrics.candidates import candidates
from dino_uad.metrics.maps import Maps, volumes_of, warn_undefined
from dino_uad.parallel import all_reduce_sum, gather_rows

FALSE_FINDINGS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False findings a scan that sensitivities are given for."""
CAMELYON = FALSE_FINDINGS[1:]
"""False findings a scan over whose sensitivities ``froc`` averages, as in the CAMELYON16 challenge."""


class FROC(Metric):
    """``lesion_sensitivity_at_0.1`` and so on: share of lesions found with that many false findings a scan.

    What is counted are *candidates*, the local maxima of a map that no higher score is near
    (:mod:`dino_uad.metrics.candidates`), as in the free-response curves of Bunch et al. 1978, of CAMELYON16 and LUNA16.
    A lesion is a connected region of a mask (8- or, in volumes, 26-connected). It is found at a threshold that a
    candidate which hits it reaches; several that hit one lesion count once, and none of them is false. A candidate that
    hits no lesion is a false finding wherever it reaches the threshold, also in a scan with lesions, and also on a
    bright place so large that it covers one. Where a map has fewer candidates than a rate allows, the sensitivity is
    that of all of them: lesions that no candidate hits are not found at any rate.

    ``froc`` is the mean sensitivity at 1/4, 1/2, 1, 2, 4 and 8 false findings a scan (CAMELYON16, Ehteshami Bejnordi et
    al. 2017). With a calibrated threshold also ``lesion_sensitivity`` there, and the ``false_findings_per_normal_scan``
    that it comes to.

    A scan is a picture, or the slices of a volume, which one batch holds all of, in order. Memory: four bytes a lesion
    and a false candidate, of which a slice has at most 256.

    Args:
        threshold: of the free-response operating point, or a function that returns it; None or NaN leaves it out.
        output_transform: from the engine's output to ``(y_pred, y, scans)``: maps and masks, ``[B,1,H,W]`` or lists of
            ``[1,H,W]``, and for each the number of its scan within the batch.
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
    def update(self, output: tuple[Maps, Maps, Sequence[int]]) -> None:
        """Add the scans of a batch; raises :class:`ValueError` for unequal shapes or scores that are not finite."""
        for scores, mask in volumes_of(*output):
            self._add(scores, mask)

    def _add(self, scores: Tensor, mask: Tensor) -> None:
        """One scan: scores and mask ``[D,H,W]``."""
        if not all(map(math.isfinite, scores.aminmax())):
            raise ValueError("anomaly scores contain NaN or Inf, expected finite numbers")
        labels, count = components(mask.numpy(), True)
        marks = candidates(scores.float().numpy(), labels)
        false = torch.from_numpy(marks.false)
        self._lesions.append(torch.from_numpy(marks.found(count)))
        self._false.append(false)
        if not count:
            self._normal_false.append(false)
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
            for rate in FALSE_FINDINGS
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
    """The lowest threshold that at most ``allowed`` of the scores reach, ties included; -Inf if all of them may."""
    count = int(allowed + 1e-9)
    if count >= len(false):
        return -float("inf")
    first_too_many = false.sort(descending=True).values[count]
    return float(torch.nextafter(first_too_many, torch.tensor(torch.inf)))


def _sensitivity(lesions: Tensor, threshold: float) -> float:
    """Share of lesions whose highest candidate reaches the threshold; one without any (-Inf) reaches none."""
    found = (lesions >= threshold) & (lesions > -torch.inf)
    return float(found.double().mean()) if len(lesions) else float("nan")
