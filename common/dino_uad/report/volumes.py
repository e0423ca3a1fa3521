"""Pictures of evaluated volumes: a strip of slices, and three planes through the highest score."""

from __future__ import annotations

import numpy as np

from dino_uad.report import panels
from dino_uad.report.overview import Scale
from dino_uad.report.shown_cases import Case

STRIP = 6
STRIP_SIDE = 240


def slice_strip(case: Case, scale: Scale) -> list[tuple[str, panels.Rgb]]:
    """Up to :data:`STRIP` slices evenly spread over the volume: caption, and the map with the annotation's outline."""
    image, scores, label = _arrays(case)
    depth, white = scores.shape[2], panels.white_level(image)
    shown = np.unique(np.linspace(0, depth - 1, STRIP + 2)[1:-1].round().astype(int)) if depth > STRIP else range(depth)
    result = []
    for k in shown:
        picture = panels.grey_rgb(image[..., k], STRIP_SIDE, _aspect(case, 0, 1), white)
        picture = panels.overlay_rgb(picture, scores[..., k], scale.low, scale.high)
        outlined = panels.contours_rgb(picture, None if label is None else label[..., k], None)
        result.append((f"slice {case.first_slice + k * case.stride}", outlined))
    return result


def three_planes(case: Case, scale: Scale, axcodes: str = "PLS") -> list[tuple[str, panels.Rgb]]:
    """The planes of the slices, along the rows and along the columns, through the highest score.

    Args:
        case: of a volume.
        scale: colours and threshold.
        axcodes: orientation of the volume; for "PLS" the planes are called axial, coronal and sagittal.
    """
    image, scores, label = _arrays(case)
    row, column, k = np.unravel_index(int(scores.argmax()), scores.shape)
    at = (row + 0.5) / scores.shape[0], (column + 0.5) / scores.shape[1], (k + 0.5) / scores.shape[2]
    image_row, image_column = int(at[0] * image.shape[0]), int(at[1] * image.shape[1])
    names = ("axial", "coronal", "sagittal") if axcodes == "PLS" else ("slice", "along a row", "along a column")

    def upright(plane):
        """``[side, D]`` to D rows, the last slice (superior, for axial ones) on top."""
        return plane.T[::-1]

    views = (
        (names[0], lambda a, r, c: a[..., k], _aspect(case, 0, 1), at[0], at[1], 1),
        (names[1], lambda a, r, c: upright(a[r]), _aspect(case, 2, 1), 1 - at[2], at[1], 1),
        (names[2], lambda a, r, c: upright(a[:, c]), _aspect(case, 2, 0), 1 - at[2], at[0], 0),
    )
    result, white = [], panels.white_level(image)
    for name, plane, aspect, y, x, across in views:
        picture = panels.grey_rgb(plane(image, image_row, image_column), aspect=aspect, white=white)
        picture = panels.overlay_rgb(picture, plane(scores, row, column), scale.low, scale.high)
        if label is not None:
            picture = panels.contours_rgb(picture, plane(label, row, column), None)
        per_pixel = case.spacing[across] * scores.shape[across] / picture.shape[1] if case.spacing else None
        result.append((name, panels.with_scale_bar(panels.with_cross(picture, y, x), per_pixel)))
    result[0] = (f"{names[0]}, slice {case.first_slice + k * case.stride}", result[0][1])
    return result


def _arrays(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Image ``[H,W,D]``, map and label ``[h,w,D]``."""
    label = None if case.label is None else case.label.numpy()
    return case.image[0].float().numpy(), case.anomaly_map.float().numpy(), label


def _aspect(case: Case, down: int, across: int) -> float:
    """Height of an image pixel divided by its width in the plane with these axes; square where nothing is known."""
    spacing = case.spacing or (1.0, 1.0, 1.0)
    # The image has the network's size, the spacing is that of the map.
    per_axis = [spacing[i] * case.anomaly_map.shape[i] / case.image.shape[1 + i] for i in range(3)]
    return per_axis[down] / per_axis[across]
