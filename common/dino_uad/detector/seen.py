"""What normal scans look like before they are scored: spacing, intensities, orientation, pictures or volumes."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

FEATURES = ("pixel size", "slice spacing", "mean intensity", "spread of intensities")
ORIENTATIONS = tuple(
    "".join(letters) for order in itertools.permutations(("LR", "AP", "SI")) for letters in itertools.product(*order)
)
KINDS = ("pictures", "volumes")
"""Scans of one slice, and of several."""
MARGIN, SLACK = 0.5, 0.1
"""A value may lie outside the range that was seen by ``MARGIN`` of its width plus ``SLACK`` of its upper end."""


class SeenScans(nn.Module):
    """Ranges of :data:`FEATURES` over normal scans ``[4,2]`` and the orientations among them, in constant size.

    Attributes:
        kinds: ``[2]`` bool, which of :data:`KINDS` are among them; none where that is not known.
        fewest: patients (or files, where names do not tell) without which nothing is said. Simulated, with intensities
            that have a normal distribution: nine in ten normal scans lie outside of the range and its margin if one
            patient was seen, 43 % if two, 7 % if five; 1.5 % at most if ten, and less than 0.1 % if 24.
    """

    fewest = 10

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ranges", torch.full((len(FEATURES), 2), torch.nan))
        self.register_buffer("orientations", torch.zeros(len(ORIENTATIONS), dtype=torch.bool))
        self.register_buffer("kinds", torch.zeros(len(KINDS), dtype=torch.bool))

    @property
    def known(self) -> bool:
        """Whether anything was seen often enough to compare with."""
        return bool(self.orientations.any()) or not bool(self.ranges.isnan().all())

    def fit(self, values: Tensor, orientations: Sequence[str | None], groups: Sequence[Hashable] | None = None) -> None:
        """Take in scans; what fewer than ``fewest`` groups tell stays unknown, but for their kinds.

        Args:
            values: ``[n,4]``, NaN where a scan does not tell (a picture has no millimetres, a single slice no spacing).
            orientations: such as ``"LPS"``; None of pictures.
            groups: patient of each, where known; each is its own when None.
        """
        members = list(range(len(values)) if groups is None else groups)

        def enough(told: Sequence[bool]) -> bool:
            return len(set(itertools.compress(members, told))) >= self.fewest

        for feature, column in enumerate(values.T):
            known = ~column.isnan()
            self.ranges[feature] = torch.stack(column[known].aminmax()) if enough(known.tolist()) else torch.nan
        oriented = enough([code is not None for code in orientations])
        self.orientations.copy_(torch.tensor([oriented and code in orientations for code in ORIENTATIONS]))
        alone = values[:, FEATURES.index("slice spacing")].isnan()
        self.kinds.copy_(torch.stack([alone.any(), (~alone).any()]))

    def other_kind(self, slices: int) -> bool:
        """Whether a scan of so many slices is of a kind that is known not to have been seen."""
        kinds = self.kinds.tolist()
        return any(kinds) and not kinds[int(slices > 1)]

    def unlike(self, values: Tensor, orientation: str | None) -> list[str]:
        """Names of the features of one scan ``[4]`` outside the ranges that were seen; none where nothing is known."""
        low, high = self.ranges.cpu().double().T
        margin = MARGIN * (high - low) + SLACK * high
        outside = (values < low - margin) | (values > high + margin)
        found = [name for name, out in zip(FEATURES, outside.tolist(), strict=True) if out]
        known = [code for code, seen in zip(ORIENTATIONS, self.orientations.tolist(), strict=True) if seen]
        return found + (["orientation"] if known and orientation is not None and orientation not in known else [])
