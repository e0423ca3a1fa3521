"""What the scores of normal scans look like that the model was not fitted to: the basis of decisions on whole scans."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from dino_uad.detector.conformal import ConformalTable, scan_scores
from dino_uad.detector.free_response import FINDINGS_PER_SCAN, finding_peaks, threshold_at_findings
from dino_uad.detector.seen import SeenScans

logger = logging.getLogger(__name__)


class NormalScans(nn.Module):
    """Calibration by whole images and scans, in buffers of constant size.

    Attributes:
        images: conformal table of single images (slices), each group counted once.
        scans: conformal table of the groups' highest images; a volume is compared with it by its highest slice.
        finding_threshold: map score of :data:`~dino_uad.detector.operating_points.FREE_RESPONSE`; NaN until fitted.
        seen: what they look like before they are scored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.images, self.scans = ConformalTable(), ConformalTable()
        self.seen = SeenScans()
        self.register_buffer("finding_threshold", torch.full((), torch.nan))

    def fit(self, scores: Tensor, groups: Sequence[Hashable], maps: Tensor) -> None:
        """Learn from normal images, in the order of the slices within each group.

        Args:
            scores: image scores ``[n]``.
            groups: patient of each image where known, else what is its own.
            maps: anomaly maps ``[n,h,w]``; may be max-pooled, which keeps the peaks.
        """
        self.images.fit(scores, groups)
        self.scans.fit(*scan_scores(scores, groups))
        members: dict[Hashable, list[int]] = {}
        for position, group in enumerate(groups):
            members.setdefault(group, []).append(position)
        self.finding_threshold.fill_(threshold_at_findings([finding_peaks(maps[m]) for m in members.values()]))
        for line in self.promises():
            logger.info(line)

    def promises(self) -> list[str]:
        """In words: what can be promised with so many groups."""
        count, smallest = int(self.scans.groups), self.scans.smallest_p
        groups = f"{count} group{'s' if count != 1 else ''}"
        lines = [
            f"{groups} (patients, or images where names do not tell) of normal validation images: at most "
            f"{level:.0%} of exchangeable normal ones are flagged"
            if smallest <= level * (1 + 1e-6)
            else f"{groups} of normal validation images cannot promise {level:.0%} of false alarms, only "
            f"{smallest:.2%}; {round(1 / level) - 1} groups are needed"
            for level in (0.05, 0.01)
        ]
        if smallest > FINDINGS_PER_SCAN * (1 + 1e-6):
            lines.append(
                f"{groups} cannot promise at most one false finding in {1 / FINDINGS_PER_SCAN:.0f} scans, only "
                f"one in {count + 1}: the threshold lies above all of their scores"
            )
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
    for level in (0.05, 0.01):
        flags = [normal.scans.flagged(p, level) for p in p_values]
        shares[f"flagged at {level:.0%}"] = None if None in flags else sum(flags) / len(flags)
    peaks, _ = scan_scores(maps.flatten(1).amax(dim=1), groups)
    shares["with a finding (1 finding in 10 scans)"] = float((peaks >= normal.finding_threshold.cpu()).double().mean())
    return shares
