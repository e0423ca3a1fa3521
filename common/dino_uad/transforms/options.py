"""Options of one request, checked before any work is done for it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Transform

from dino_uad.inferers import smoothing_width
from dino_uad.transforms.postprocess import operating_point, output_kind

logger = logging.getLogger(__name__)


class CheckOptions(Transform):
    """Passes its input on, or refuses the options of an inference with a message that names the wrong one.

    Whatever is raised while MONAI Label builds a bundle's inferer or postprocessing, which it does after the
    preprocessing has run, reaches the client as a bare "Internal Server Error". What its web framework answers with a
    message has to come from a transform at work: this one, the first.

    Args:
        false_positive_rate: operating point of the label map.
        smoothing: standard deviation across slices.
        output: label map or anomaly map.
    """

    def __init__(self, false_positive_rate: Any, smoothing: Any, output: Any) -> None:
        self.options = {"false_positive_rate": false_positive_rate, "smoothing": smoothing, "output": output}

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """Return ``data``; raises what :func:`refusal` makes of the message."""
        checks = {"false_positive_rate": operating_point, "smoothing": smoothing_width, "output": output_kind}
        for name, check in checks.items():
            try:
                check(self.options[name])
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
