"""A scan of which no slice was run has a map of zeros, which looks like that of a normal scan: it is no result."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

NOTHING_SCORED = (
    "no slice has enough foreground to be scored (all of one value, or less than min_foreground, or outside of the "
    "slices the fit was made for). Look at the file; --slices#min_foreground changes what is enough"
)


def nothing_scored(item: Mapping[Hashable, Any]) -> bool:
    """Whether ``ScoreScand`` found that no slice of a scan was run."""
    return item.get("scan", {}).get("slices_scored") == 0
