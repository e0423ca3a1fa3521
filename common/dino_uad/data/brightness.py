"""Pictures that fill a small part of their type's range (12 bits of a detector in 16) look black to a network."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np

from dino_uad.transforms import UnitPILReader

DARK = 0.25  # of the type's largest value
PERCENTILE = 99  # of a picture: a dead pixel or a burnt-in letter says nothing of the others
SAMPLE = 16

logger = logging.getLogger(__name__)


def warn_dark(items: list[dict]) -> None:
    """Warn where no training picture reaches a quarter of its type's largest value, and offer a range that fits.

    A sample tells whether all have to be read for it; the range offered is that of the whole training set.
    """
    reader = UnitPILReader()
    paths = [item["image"] for item in items if reader.verify_suffix(str(item["image"]))]
    if not paths or _largest(paths[:: math.ceil(len(paths) / SAMPLE)])[0] > DARK:
        return
    share, value = _largest(paths)
    if share == 0:
        logger.warning("all %d training pictures are black (such as %s): nothing can be learnt", len(paths), paths[0])
    elif share <= DARK:
        logger.warning(
            "the brightest value of %d training pictures is %g, %.2g %% of what their type holds (such as %s): the "
            "network is shown nearly black images. Are these 12 bits in 16? Fit, evaluate and infer with "
            "--intensity \"{'mode':'range','window':[0,%g]}\"",
            len(paths),
            value,
            100 * share,
            Path(paths[0]).name,
            value,
        )


def _largest(paths: list[str]) -> tuple[float, float]:
    """The largest value of all pictures but for a few pixels, as a share of its type's largest and as it is stored."""
    reader, found = UnitPILReader(), (0.0, 0.0)
    for path in paths:
        try:
            array, meta = reader.get_data(reader.read(path))
        except Exception:  # decoders raise what they like
            continue  # loading it says what is wrong
        if not meta["unit_range"]:
            return 1.0, 1.0  # scaled by percentiles
        share = float(np.percentile(array, PERCENTILE)) if array.size else 0.0
        top = float(array.max(initial=0))
        found = max(found, (share, round((top if top <= DARK else share) * meta["type_range"], 3)))
    return found
