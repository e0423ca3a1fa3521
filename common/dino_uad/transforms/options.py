"""Options of one request, checked before any work is done for it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Transform

from dino_uad.findings import MinSize
from dino_uad.inferers import smoothing_width
from dino_uad.transforms.choices import growth, operating_point, output_kind

logger = logging.getLogger(__name__)


class CheckOptions(Transform):
    """Passes its input on, or refuses the options of an inference with a message that names the wrong one.

    Whatever is raised while MONAI Label builds a bundle's inferer or postprocessing, which it does after the
    preprocessing has run, reaches the client as a bare "Internal Server Error". What its web framework answers with a
    message has to come from a transform at work: this one, the first.

    Args:
        false_positive_rate: operating point of the label map.
        smoothing: standard deviation across slices.
        output: label map, numbered findings or anomaly map.
        grow: operating point down to which findings extend.
        min_size: smallest finding.
    """

    def __init__(
        self, false_positive_rate: Any, smoothing: Any, output: Any, grow: Any = "off", min_size: Any = 0
    ) -> None:
        self.options = {
            "false_positive_rate": (operating_point, false_positive_rate),
            "grow": (growth, grow),
            "min_size": (MinSize.parse, min_size),
            "smoothing": (smoothing_width, smoothing),
            "output": (output_kind, output),
        }

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """Return ``data``; raises what :func:`refusal` makes of the message."""
        for name, (check, value) in self.options.items():
            try:
                check(value)
            except ValueError as error:
                raise refusal(f"option {name}: {error}") from None
        return data


def refusal(message: str) -> Exception:
    """A ValueError; in the process of a MONAI Label server what is answered with status 400 and the message."""
    if "monailabel.app" not in sys.modules:
        return ValueError(message)
    from starlette.exceptions import HTTPException

    logger.error(f"request refused: {message}")  # an answer of the framework leaves no trace in the log
    return HTTPException(400, message)
