"""That what was loaded is what was identified: files may change in between, which is hours for a large data set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dino_uad.embeddings.identity import Identity, files_state, identify

logger = logging.getLogger(__name__)


def is_changed(entry: Mapping[str, Any], before: Identity | None, on_error: str = "raise") -> bool:
    """Whether the files of an entry of a data list, which have been loaded by now, are others than before.

    Times and inodes tell at once that they are the same; some network drives give new numbers to the same files, so
    that only their bytes tell that they are not.

    Args:
        entry: of the data list.
        before: what it was identified as; None is unknown, and not told of.
        on_error: ``"raise"`` or ``"skip"``, which warns.

    Raises:
        RuntimeError: they are, and ``on_error`` is ``"raise"``.
    """
    try:
        if before is None or files_state(entry) == before.state or identify(entry).key == before.key:
            return False
    except OSError:  # gone
        pass
    change = f"{entry.get('image')} changed while it was read; its embedding is not kept"
    if on_error == "raise":
        raise RuntimeError(f"{change}: run again once nothing writes it any more")
    logger.warning(change)
    return True
