"""The DICOM reader for MONAI's ``LoadImage``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from monai.data.image_reader import ImageReader

from dino_uad.findings import LPS_TO_RAS, NO_SPACING
from dino_uad.transforms.dicom.folder import choose
from dino_uad.transforms.dicom.frames import is_dicom
from dino_uad.transforms.dicom.geometry import TILT, affine_of
from dino_uad.transforms.dicom.pixels import colour_values, frame_values
from dino_uad.transforms.dicom.stacks import Stack

logger = logging.getLogger(__name__)


class DicomReader(ImageReader):
    """Reads a DICOM file or a folder with one stack of DICOM frames as float32 ``[X,Y,Z]`` (columns, rows, slices).

    Frames come in the order of their positions along the slices' normal, whatever the files or frames are called or
    numbered. The affine is that of the positions (right, anterior, superior), sheared where the scanner's gantry was
    tilted. Colour frames (RGB, YBR, palettes) become pictures ``[W,H,3]`` in [0, 1].

    Args:
        series: shell pattern that chooses among several stacks in one folder; see ``Stack.matches``.
    """

    def __init__(self, series: str | None = None) -> None:
        self.series = series

    def verify_suffix(self, filename: Sequence[str] | str) -> bool:
        """Whether it is a folder, or a DICOM file by its name or content."""
        (name,) = (filename,) if isinstance(filename, str | Path) else filename
        path = Path(name)
        return path.is_dir() or path.suffix.lower() == ".dcm" or is_dicom(path)

    def read(self, data: Sequence[str] | str, **kwargs) -> Stack:
        """Find the frames.

        Raises:
            ValueError: no image, several stacks, or frames that are not a scan: a film, a mosaic, colour slices.
        """
        (name,) = (data,) if isinstance(data, str | Path) else data
        stack = choose(Path(name), self.series)
        first = stack.frames[0]
        if first.mosaic:
            raise ValueError(
                "it is a Siemens mosaic, whose picture shows all slices side by side; "
                "expected one slice a frame. Convert it with dcm2niix"
            )
        if len(stack.frames) > 1 and (first.position is None or first.samples == 3):
            kind = "colour frames" if first.samples == 3 else "frames without positions (a film or a time series)"
            raise ValueError(
                f"it holds {len(stack.frames)} {kind}, which are no volume; expected slices in space, or one picture. "
                "Export the frames as single files"
            )
        self._tell(stack, Path(name))
        return stack

    def get_data(self, img: Stack) -> tuple[np.ndarray, dict]:
        """Return the values, and ``affine``, ``spatial_shape``, ``original_channel_dim``, ``space``, and
        ``uneven_slices`` and ``no_spacing``, which are empty where the affine tells where all slices lie and how large
        a pixel is.
        """
        first = img.frames[0]
        affine = affine_of(img.frames)
        meta = {"affine": affine, "original_affine": affine.copy(), "space": "RAS"}
        meta |= {"uneven_slices": img.spacing.doubt, NO_SPACING: ""}
        if any(frame.no_spacing for frame in img.frames):
            meta[NO_SPACING] = "its DICOM header states no pixel spacing"
        if first.samples == 3:
            meta |= {"affine": LPS_TO_RAS.copy(), "original_affine": LPS_TO_RAS.copy()}
            meta |= {"picture": True, "unit_range": True}
            array = np.moveaxis(colour_values(pydicom.dcmread(first.file, force=True), first), 0, 1)
            return array, meta | {"spatial_shape": np.asarray(array.shape[:2]), "original_channel_dim": -1}
        # Filled slice by slice in the files' own order; turned to [X,Y,Z] without a copy.
        array = np.empty((len(img.frames), *first.shape), np.float32)
        opened, data = None, None
        for k, frame in enumerate(img.frames):
            if frame.file != opened:
                opened, data = frame.file, pydicom.dcmread(frame.file, force=True)
            array[k] = frame_values(data, frame)
        array = array.transpose(2, 1, 0)
        return array, meta | {"spatial_shape": np.asarray(array.shape), "original_channel_dim": float("nan")}

    @staticmethod
    def _tell(stack: Stack, path: Path) -> None:
        spacing = stack.spacing
        if not spacing.even:
            logger.warning("%s: DICOM %s; geometry is approximate", path, spacing.doubt)
        elif spacing.tilt > TILT:
            logger.warning(
                "%s: gantry tilt of %.1f degrees: slices are shifted within their plane, and so is the affine of what "
                "is saved (sheared; viewers that ignore the shear show it straightened)",
                path,
                spacing.tilt,
            )
