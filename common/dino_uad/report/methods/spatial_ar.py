"""Spatial AR: where on the grid normal patches are hard to predict."""

from __future__ import annotations

from dino_uad.heads.spatial_ar import SpatialARHead
from dino_uad.report.methods.section import NORMAL_SCORES, TITLE, MethodContext, by_position, method_section
from dino_uad.report.sections import Section

SEEN = {
    "forward": "the ones before it in reading order",
    "backward": "the ones after it in reading order",
    "both": "the ones before it in reading order, and again from those after it",
    "bidirectional": "all others",
}
SCORE = {
    "unit": "the score is the mean squared error",
    "full": "the score is the error's length under the covariance of errors on the training images",
}


@method_section.register
def spatial_ar_section(head: SpatialARHead, context: MethodContext) -> Section:
    """Prediction error by grid position, from calibration and from the test images."""
    calibration = head.position_error[0].cpu() if head.position_error.numel() else None
    error = "mean squared error of normal validation images, which scores are divided by"
    galleries = by_position({error: calibration, NORMAL_SCORES: context.position_mean})
    calibrated = "; scores are divided by the error of normal images there" if head.position_calibration else ""
    parameters = sum(parameter.numel() for parameter in head.parameters())
    return Section(
        TITLE,
        f"A network predicts each patch embedding from {SEEN[head.direction]}; {SCORE[head.covariance]}. Positions "
        f"with little context are harder to predict{calibrated}.",
        {"direction": head.direction, "parameters": f"{parameters:,}", "batches": f"{int(head.batches_seen):,}"},
        galleries,
    )
