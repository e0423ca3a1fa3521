"""A free-response operating point: the threshold at which so large a share of normal scans has any finding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def finding_peaks(maps: Tensor) -> Tensor:
    """Local maxima of a stack of maps ``[D,h,w]`` among the 26 neighbours, descending.

    At any threshold a connected place holds at least one maximum of its own, so the maxima that reach the threshold
    are at least as many as the findings, and, unlike those, never fewer at a lower threshold.
    """
    highest = F.max_pool3d(maps[None], 3, stride=1, padding=1)[0]
    return maps[maps == highest].sort(descending=True).values


def threshold_at_findings(peaks: Sequence[Tensor], rate: float) -> float:
    """The lowest threshold that promises that at most the share ``rate`` of normal scans has any finding.

    With K scans and c maxima at or above the threshold, ``(c + 1) / (K + 1) <= rate`` bounds, in expectation, the share
    of new exchangeable scans that have any finding (conformal risk control; Angelopoulos et al. 2022, theorem 1, with
    the loss "has a finding", which c bounds). How many findings such a scan has is not bounded. Fewer than
    ``1 / rate - 1`` scans cannot promise that: then no scan has a finding, and the promise is ``1 / (K + 1)``.

    Args:
        peaks: of each normal scan, its :func:`finding_peaks`, or only the highest, to count scans instead of findings.
        rate: share of scans with any finding; of calibration scans also the findings a scan, if all maxima are given.
    """
    if not len(peaks):
        raise ValueError("no normal scan found, at least one expected to choose a threshold by the findings in it")
    highest = torch.cat([scan.flatten() for scan in peaks]).float().sort(descending=True).values
    allowed = max(int(rate * (len(peaks) + 1) + 1e-9) - 1, 0)
    if allowed >= len(highest):
        return float(highest[-1])
    return float(torch.nextafter(highest[allowed], torch.tensor(torch.inf)))
