"""Inference of a DICOM series leaves a segmentation and a report beside the maps, which refer to the series."""

import logging

import highdicom as hd
import nibabel as nib
import numpy as np
from pydicom import dcmread

import workflows
from dicom_series import write_series
from dino_uad.transforms import is_own_result


def test_a_series_in_and_its_findings_out(tmp_path):
    workflows.run("dpmm", tmp_path)
    rng = np.random.default_rng(0)
    volume = rng.integers(120, 700, (56, 56, 3))
    volume[14:28, 14:42, 1] = 1500
    affine = np.array([[-1.1, 0, 0, 20], [0, -0.9, 0, 18], [0, 0, 3, -5], [0, 0, 0, 1.0]])
    write_series(tmp_path / "scans" / "one", volume, affine)
    workflows.run(
        "dpmm",
        tmp_path,
        "inference",
        dataset_dir=str(tmp_path / "scans"),
        ckpt_dir=str(tmp_path / "models"),
        **{"displayable_configs#false_positive_rate": "10 %"},
    )
    logging.disable(logging.NOTSET)
    out = tmp_path / "inference"
    label = nib.load(out / "one_label.nii.gz")
    marked = np.asanyarray(label.dataobj) > 0
    assert marked.any()
    segmentation = hd.seg.segread(out / "one_findings_seg.dcm")
    mask = segmentation.get_volume(combine_segments=True)
    assert (mask.array > 0).sum() == marked.sum()
    series = {dcmread(path).SeriesInstanceUID for path in (tmp_path / "scans" / "one").iterdir()}
    assert {segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID} == series
    report = hd.sr.srread(out / "one_findings_sr.dcm")
    assert is_own_result(out / "one_findings_seg.dcm") and is_own_result(out / "one_findings_sr.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == segmentation.number_of_segments
