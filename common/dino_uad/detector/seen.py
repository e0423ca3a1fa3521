"""What normal scans look like before they are scored: spacing, intensities, orientation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

FEATURES = ("pixel size", "slice spacing", "mean intensity", "spread of intensities")
ORIENTATIONS = tuple(
    "".join(letters) for order in itertools.permutations(("LR", "AP", "SI")) for letters in itertools.product(*order)
)
MARGIN, SLACK = 0.5, 0.1
"""Beyond the range that was seen, by half its width and a tenth of its upper end, a value still passes."""


class SeenScans(nn.Module):
    """Ranges of :data:`FEATURES` over normal scans ``[4,2]`` and the orientations among them, in constant size."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ranges", torch.full((len(FEATURES), 2), torch.nan))
        self.register_buffer("orientations", torch.zeros(len(ORIENTATIONS), dtype=torch.bool))

    def fit(self, values: Tensor, orientations: Sequence[str | None]) -> None:
        """Take in scans.

        Args:
            values: ``[n,4]``, NaN where a scan does not tell (a picture has no millimetres).
            orientations: such as ``"LPS"``; None of pictures.
        """
        for feature, column in enumerate(values.T):
            known = column[~column.isnan()]
            self.ranges[feature] = torch.stack([known.min(), known.max()]) if len(known) else torch.nan
        self.orientations.copy_(torch.tensor([code in orientations for code in ORIENTATIONS]))

    def unlike(self, values: Tensor, orientation: str | None) -> list[str]:
        """Names of what is outside of what was seen, for one scan ``[4]``; nothing where nothing is known."""
        low, high = self.ranges.cpu().double().T
        margin = MARGIN * (high - low) + SLACK * high
        outside = (values < low - margin) | (values > high + margin)
        found = [name for name, out in zip(FEATURES, outside.tolist(), strict=True) if out]
        known = [code for code, seen in zip(ORIENTATIONS, self.orientations.tolist(), strict=True) if seen]
        return found + (["orientation"] if known and orientation is not None and orientation not in known else [])
