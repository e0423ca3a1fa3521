"""Spatial AR: where on the grid normal patches are hard to predict."""

from __future__ import annotations

from dino_uad.heads.spatial_ar import SpatialARHead
from dino_uad.report.methods.section import NORMAL_SCORES, TITLE, MethodContext, by_position, method_section
from dino_uad.report.sections import Section


@method_section.register
def spatial_ar_section(head: SpatialARHead, context: MethodContext) -> Section:
    """Prediction error by grid position, from calibration and from the test images."""
    calibration = head.position_error[0].cpu() if head.position_error.numel() else None
    error = "mean squared error of normal validation images, which scores are divided by"
    galleries = by_position({error: calibration, NORMAL_SCORES: context.position_mean})
    parameters = sum(parameter.numel() for parameter in head.parameters())
    return Section(
        TITLE,
        "A causal network predicts each patch embedding from the ones before it. Positions with little context are "
        "harder to predict; calibration makes the scores of normal images alike everywhere.",
        {"direction": head.direction, "parameters": f"{parameters:,}", "batches": f"{int(head.batches_seen):,}"},
        galleries,
    )
