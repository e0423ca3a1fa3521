"""What the scores of normal scans look like that the model was not fitted to: the basis of decisions on whole scans."""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dino_uad.detector.conformal import ConformalTable, scan_scores
from dino_uad.detector.free_response import finding_peaks, threshold_at_findings
from dino_uad.detector.groups import members
from dino_uad.detector.operating_points import BY_SCANS, DEFAULT_POINT, FREE_RESPONSE, SCAN_RATES
from dino_uad.detector.seen import SeenScans
from dino_uad.wording import plural

logger = logging.getLogger(__name__)


class NormalScans(nn.Module):
    """Calibration by whole images and scans, in buffers of constant size.

    Attributes:
        images: conformal table of single images (slices), each group counted once.
        scans: conformal table of the groups' highest images; a volume is compared with it by its highest slice.
        finding_thresholds: map scores of :data:`~dino_uad.detector.operating_points.FREE_RESPONSE`; NaN until fitted.
        seen: what they look like before they are scored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.images, self.scans = ConformalTable(), ConformalTable()
        self.seen = SeenScans()
        self.register_buffer("finding_thresholds", torch.full((len(FREE_RESPONSE),), torch.nan))

    def fit(self, scores: Tensor, groups: Sequence[Hashable], maps: Tensor, scans: Sequence[Hashable]) -> None:
        """Learn from normal images, in the order of the slices within each group.

        Args:
            scores: image scores ``[n]``.
            groups: patient of each image where known, else what is its own.
            maps: anomaly maps ``[n,h,w]``; may be max-pooled, which keeps the highest peak.
            scans: the file of each image: the slices of a volume share their findings, pictures of a patient do not.
        """
        self.images.fit(scores, groups)
        self.scans.fit(*scan_scores(scores, groups))
        of_group: dict[Hashable, list[Tensor]] = {}
        for (group, _), places in members(list(zip(groups, scans, strict=True))).items():
            of_group.setdefault(group, []).append(finding_peaks(maps[places]))
        peaks = [torch.cat(parts) for parts in of_group.values()]
        highest = [group.amax()[None] for group in peaks]
        found = [threshold_at_findings(highest if p in BY_SCANS else peaks, r) for p, r in FREE_RESPONSE.items()]
        self.finding_thresholds.copy_(torch.tensor(found))
        for line in self.promises():
            logger.info(line)

    @property
    def finding_threshold(self) -> float:
        """The score of :data:`~dino_uad.detector.operating_points.DEFAULT_POINT`; NaN until fitted."""
        return self.free_response()[DEFAULT_POINT]

    def free_response(self) -> dict[str, float]:
        """The score of each of :data:`~dino_uad.detector.operating_points.FREE_RESPONSE`."""
        return dict(zip(FREE_RESPONSE, self.finding_thresholds.tolist(), strict=True))

    def promises(self, points: Collection[Any] = FREE_RESPONSE) -> list[str]:
        """In words: what can be promised with so many groups.

        Args:
            points: operating points to speak of; only those of :data:`FREE_RESPONSE` promise anything.
        """
        count, smallest = int(self.scans.groups), self.scans.smallest_p
        groups = plural(count, "group")
        lines = [
            f"{groups} (patients, or images where names do not tell) of normal validation images: at most "
            f"{level:.0%} of exchangeable normal ones are flagged"
            if smallest <= level * (1 + 1e-6)
            else f"{groups} of normal validation images cannot promise {level:.0%} of false alarms, only "
            f"{smallest:.2%}; {round(1 / level) - 1} groups are needed"
            for level in SCAN_RATES
        ]
        lines += [
            f"{groups} cannot promise that at most {rate:.0%} of normal scans have a finding ({name}), only 1 in "
            f"{count + 1}: that threshold lies above all their scores"
            for name, rate in FREE_RESPONSE.items()
            if name in points and smallest > rate * (1 + 1e-6)
        ]
        return lines


def flagged_shares(
    normal: NormalScans, scores: Tensor, groups: Sequence[Hashable], maps: Tensor
) -> dict[str, float | None]:
    """Shares of the groups of some scans that are flagged at 5 % and 1 %, and that have a finding.

    Args:
        normal: what they are compared with.
        scores: image scores ``[n]``.
        groups: of each image.
        maps: anomaly maps ``[n,h,w]``, may be max-pooled.
    """
    highest, _ = scan_scores(scores, groups)
    p_values = normal.scans.p_values(highest).tolist()
    shares: dict[str, float | None] = {}
    for level in SCAN_RATES:
        flags = [normal.scans.flagged(p, level) for p in p_values]
        shares[f"flagged at {level:.0%}"] = None if None in flags else sum(flags) / len(flags)
    peaks, _ = scan_scores(maps.flatten(1).amax(dim=1), groups)
    for name, threshold in normal.free_response().items():
        shares[f"with a finding ({name})"] = float((peaks >= threshold).double().mean())
    return shares
