"""A DICOM structured report: the measurements of the findings, as TID 1500 has them."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
from highdicom.seg import Segmentation
from highdicom.sr import CodedConcept, Comprehensive3DSR, Measurement
from pydicom.sr.codedict import codes

import dino_uad
from dino_uad.dicom_output.segmentation import MANUFACTURER, SERIES_NUMBER, stable_uid, tracking_uid
from dino_uad.dicom_output.source import SourceScan
from dino_uad.findings import Finding

PEAK = CodedConcept("peak-score", "99DINOUAD", "Peak anomaly score")
COUNT = CodedConcept("findings", "99DINOUAD", "Number of findings")
SIZES = {
    "ml": (codes.SCT.Volume, CodedConcept("ml", "UCUM", "milliliter")),
    "mm2": (codes.SCT.Area, codes.UCUM.SquareMillimeter),
}


def findings_report(
    source: SourceScan, findings: Sequence[Finding], method: str, segmentation: Segmentation | None
) -> Comprehensive3DSR:
    """A measurement report (DICOM PS3.16, TID 1500): size, largest diameter and peak score of each finding.

    Sizes and diameters are left out where they are not in millimetres, for want of a pixel size in the source.
    A first group tells how many findings the scan has, so that one without any has a report, too.

    Args:
        source: the series.
        findings: what was found, in any number.
        method: the bundle that found them.
        segmentation: of :func:`~dino_uad.dicom_output.segmentation.findings_segmentation`, with the findings' segments.
    """
    first = source.headers[0]
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=stable_uid(first, method, "observer"), manufacturer_name=MANUFACTURER, model_name=method
        ),
    )
    groups = [_scan_group(source, len(findings), method)]
    groups += [_group(finding, first.SeriesInstanceUID, method, segmentation) for finding in findings]
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        # The image library asks a radiograph for spacing and orientation, which many do not tell.
        referenced_images=list(source.headers) if "FrameOfReferenceUID" in first else None,
    )
    evidence = list(source.headers) + ([segmentation] if segmentation is not None else [])
    return Comprehensive3DSR(
        evidence=evidence,
        content=content[0],
        series_instance_uid=stable_uid(first, method, "SR series"),
        series_number=SERIES_NUMBER["SR"],
        sop_instance_uid=stable_uid(first, method, f"SR {[finding.as_dict() for finding in findings]}"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_verified=False,
        series_description=f"{MANUFACTURER} {method} measurements",
    )


def _scan_group(source: SourceScan, count: int, method: str) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    first = source.headers[0]
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=stable_uid(first, method, "scan"), identifier="Scan"),
        source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(header) for header in source.headers],
        measurements=[Measurement(name=COUNT, value=count, unit=codes.UCUM.NoUnits)],
    )


def _group(
    finding: Finding, series: str, method: str, segmentation: Segmentation
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    measurements = [Measurement(name=PEAK, value=finding.peak, unit=codes.UCUM.NoUnits)]
    if finding.diameter_unit == "mm":
        size, unit = SIZES[finding.unit]
        measurements.append(Measurement(name=size, value=finding.size, unit=unit))
        measurements.append(Measurement(name=codes.SCT.Diameter, value=finding.diameter, unit=codes.UCUM.Millimeter))
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=tracking_uid(series, finding, method), identifier=f"Finding {finding.number}"
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=finding.number,
            source_series=hd.sr.SourceSeriesForSegmentation(series),
        ),
        finding_type=codes.SCT.Lesion,
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        algorithm_id=hd.sr.AlgorithmIdentification(f"{MANUFACTURER} {method}", dino_uad.__version__),
        measurements=measurements,
    )
