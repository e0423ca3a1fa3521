"""What an inference run passes over and tells of, and what it knows as the annotation of a scan that it scores."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dino_uad.data import datalist


@pytest.mark.parametrize(
    ("scans", "others", "told"),
    [
        (["p1_flair"], ["p1_label"], []),
        (["p1_flair_preprocessed", "p2_flair"], ["p1_seg", "p2_label"], []),
        (["p1_flair"], ["p3_label"], ["p3_label"]),  # of no scan here: it may be one itself
        (["flair"], ["p1_label"], ["p1_label"]),
    ],
)
def test_a_mask_is_that_of_its_scan_with_the_sequence_in_its_name_or_without(tmp_path, scans, others, told):
    for name in scans + others:
        values = np.zeros((6, 5, 4), np.uint8) if name in others else np.arange(120, dtype=np.int16).reshape(6, 5, 4)
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii.gz")
    found = datalist(tmp_path, "all")
    assert sorted(Path(item["image"]).name for item in found) == sorted(f"{name}.nii.gz" for name in scans)
    assert sorted(Path(path).name for path, _ in found.passed) == [f"{name}.nii.gz" for name in told]
