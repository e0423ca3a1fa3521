"""A DICOM Segmentation: one segment a finding, on the frames of the source series."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

import dino_uad
from dino_uad.dicom_output.source import SourceScan
from dino_uad.findings import LPS_TO_RAS, Finding

MANUFACTURER = "dino-uad"
logging.getLogger("highdicom").setLevel(logging.WARNING)  # it logs every attribute that it copies
SERIES_NUMBER = {"SEG": 9801, "SR": 9802}  # far from what scanners count


def findings_segmentation(
    source: SourceScan, labels: NDArray, affine: NDArray, findings: Sequence[Finding], method: str
) -> Segmentation:
    """A binary segmentation (DICOM PS3.3, A.51) with a segment for each finding, numbered as the finding is.

    Where the array's slices are the source's frames, each frame of the segmentation refers to the one it was made from;
    a resampled scan gets the array's own geometry in the source's frame of reference.

    Args:
        source: the series; its patient, study and frame of reference are taken over, as the standard asks for.
        labels: ``[X,Y,Z]`` or ``[X,Y]``, 0 or the number of the finding.
        affine: ``[4,4]`` of ``labels``, voxel indices to RAS+ millimetres; used where slices are not frames.
        findings: at least one.
        method: the bundle that found them.

    Raises:
        ValueError: there are no findings: the standard knows no segmentation without a segment.
    """
    if not findings:
        raise ValueError("no findings: a DICOM Segmentation needs at least one segment")
    volume = labels if labels.ndim == 3 else labels[..., None]
    frames = np.ascontiguousarray(volume.T).astype(np.uint8 if len(findings) < 256 else np.uint16)  # [Z,Y,X]
    first = source.headers[0]
    return Segmentation(
        source_images=list(source.headers),
        pixel_array=frames[list(source.slices)] if source.slices is not None else _volume(frames, affine, first),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(finding, first.SeriesInstanceUID, method) for finding in findings],
        series_instance_uid=stable_uid(first, method, "SEG series"),
        series_number=SERIES_NUMBER["SEG"],
        sop_instance_uid=stable_uid(first, method, f"SEG {[finding.as_dict() for finding in findings]}"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=method,
        software_versions=dino_uad.__version__,
        device_serial_number="none",
        content_label="ANOMALIES",
        content_description="Places unlike normal anatomy; research only",
        series_description=f"{MANUFACTURER} {method} findings",
    )


def stable_uid(header: hd.base.Dataset, *words: str) -> str:
    """A UID that the same findings in the same series get again, so that a repeated run makes no second object."""
    return generate_uid(entropy_srcs=[header.SeriesInstanceUID, header.SOPInstanceUID, *words, dino_uad.__version__])


def tracking_uid(series: str, finding: Finding, method: str) -> str:
    """The finding's identity, which segmentation and report share.

    Another model, or another operating point, finds something else under the same number.
    """
    return generate_uid(entropy_srcs=[series, method, str(finding.as_dict())])


def _description(finding: Finding, series: str, method: str) -> SegmentDescription:
    return SegmentDescription(
        segment_number=finding.number,
        segment_label=f"Finding {finding.number}",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm(method),
        tracking_uid=tracking_uid(series, finding, method),
        tracking_id=f"Finding {finding.number}",
    )


def algorithm(method: str) -> hd.AlgorithmIdentificationSequence:
    """What made the findings."""
    return hd.AlgorithmIdentificationSequence(
        name=f"{MANUFACTURER} {method}", family=codes.DCM.ArtificialIntelligence, version=dino_uad.__version__
    )


def _volume(frames: NDArray, affine: NDArray, header: hd.base.Dataset) -> hd.Volume:
    """The labels ``[Z,Y,X]`` as highdicom wants a volume: with an affine of that order to DICOM's LPS+ millimetres."""
    return hd.Volume(
        frames,
        LPS_TO_RAS @ affine[:, [2, 1, 0, 3]],
        coordinate_system="PATIENT",
        frame_of_reference_uid=header.FrameOfReferenceUID,
    )
