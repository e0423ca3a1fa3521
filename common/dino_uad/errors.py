"""What a person reads when something is wrong: one message instead of forty frames of a framework's traceback."""

from __future__ import annotations

import os
import sys
from types import TracebackType


def root_cause(error: BaseException) -> BaseException:
    """The first exception of a chain: MONAI and ignite wrap the one that says what happened."""
    while True:
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if inner is None:
            return error
        error = inner


def short_tracebacks(debug: bool = False) -> None:
    """Print uncaught errors as one message on standard error; the exit status stays 1.

    Args:
        debug: keep Python's full traceback. Also kept when the environment variable ``DINO_UAD_DEBUG`` is set.
    """
    if debug or os.environ.get("DINO_UAD_DEBUG"):
        return

    def show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not issubclass(kind, Exception):  # Ctrl-C
            sys.__excepthook__(kind, error, traceback)
            return
        cause = root_cause(error)
        print(f"error: {str(cause) or type(cause).__name__}", file=sys.stderr)
        print("(set DINO_UAD_DEBUG=1 for the full traceback)", file=sys.stderr)

    sys.excepthook = show
