"""Findings written as DICOM and read back by software that is not ours: pydicom, highdicom, dciodvfy where it is."""

import shutil
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from pydicom import dcmread
from scipy.spatial.transform import Rotation

from dicom_series import LPS, write_radiograph, write_series
from dino_uad.dicom_output import SourceScan, findings_report, findings_segmentation
from dino_uad.findings import ScanGrid, extract_findings
from dino_uad.transforms import DicomReader, LoadScan, SaveDicomd, save_dicom
from scans import affine_of

SHAPE = (20, 16, 6)


def source_of(path: Path, shape, affine, series=None) -> SourceScan:
    return SourceScan.of(DicomReader(series).read(str(path)).frames, shape, affine)


def scores() -> np.ndarray:
    """Two findings: one of 24 voxels with the higher peak in slices 1 and 2, one of 4 voxels in slice 4."""
    values = np.zeros(SHAPE, np.float32)
    values[3:7, 5:8, 1:3] = 2
    values[5, 6, 2] = 5
    values[12:14, 10:12, 4] = 3
    return values


@pytest.fixture(params=["LPS", "RAS", "PIR", "oblique"])
def made(request, tmp_path: Path):
    affine = affine_of("RAS" if request.param == "oblique" else request.param)
    if request.param == "oblique":
        affine[:3, :3] = Rotation.from_euler("xyz", (20, -10, 35), degrees=True).as_matrix() @ affine[:3, :3]
    if np.linalg.det((LPS @ affine)[:3, :3]) < 0:  # the third axis of a DICOM grid is free; flip it to be right-handed
        affine = affine @ np.diag([1, 1, -1, 1.0])
    folder = write_series(tmp_path / "series", np.arange(np.prod(SHAPE)).reshape(SHAPE), affine)
    labels, findings = extract_findings(scores(), ScanGrid(SHAPE, affine, 2), 1.0)
    source = source_of(folder, SHAPE, affine)
    segmentation = findings_segmentation(source, labels, affine, findings, "dpmm")
    report = findings_report(source, findings, "dpmm", segmentation)
    segmentation.save_as(tmp_path / "seg.dcm")
    report.save_as(tmp_path / "sr.dcm")
    return tmp_path, affine, labels, findings, source


def test_every_marked_voxel_lies_where_it_was_found(made):
    folder, affine, labels, findings, _ = made
    read = hd.seg.segread(folder / "seg.dcm")
    assert read.number_of_segments == len(findings) == 2
    volume = read.get_volume(combine_segments=True)
    marked = np.argwhere(volume.array > 0)
    world = (volume.affine @ np.c_[marked, np.ones(len(marked))].T)[:3].T
    expected = (LPS @ affine @ np.c_[np.argwhere(labels > 0), np.ones((labels > 0).sum())].T)[:3].T
    order = [np.lexsort(points.round(2).T) for points in (world, expected)]
    np.testing.assert_allclose(world[order[0]], expected[order[1]], atol=1e-3)
    for finding in findings:
        assert (volume.array == finding.number).sum() == (labels == finding.number).sum() == finding.voxels


def test_frames_refer_to_the_files_they_were_made_from(made):
    folder, affine, labels, _, _ = made
    positions = {}
    for path in (folder / "series").iterdir():
        header = dcmread(path, stop_before_pixels=True)
        positions[header.SOPInstanceUID] = (np.linalg.inv(LPS @ affine) @ [*header.ImagePositionPatient, 1])[2]
    segmentation = dcmread(folder / "seg.dcm")
    used = set()
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        z = round(positions[image.ReferencedSOPInstanceUID])
        assert (labels[..., z] == number).any()
        used.add((z, number))
    assert used == {(1, 1), (2, 1), (4, 2)}
    assert segmentation.PatientID == "P-17" and segmentation.StudyDate == "20240101"


def test_the_report_tells_the_measurements(made):
    folder, _, _, findings, _ = made
    report = hd.sr.srread(folder / "sr.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["Finding 1", "Finding 2"]
    segments = dcmread(folder / "seg.dcm").SegmentSequence
    for group, finding, segment in zip(groups, findings, segments, strict=True):
        values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
        assert values["Volume"] == (pytest.approx(finding.size), "ml")
        assert values["Diameter"] == (pytest.approx(finding.diameter), "mm")
        assert values["Peak anomaly score"] == (pytest.approx(finding.peak), "1")
        assert group.tracking_uid == segment.TrackingUID


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
@pytest.mark.parametrize("name", ["seg.dcm", "sr.dcm"])
def test_an_independent_validator_finds_no_error(made, name):
    done = subprocess.run(["dciodvfy", made[0] / name], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []


def test_the_same_findings_are_the_same_object(made):
    _, affine, labels, findings, source = made
    first, second = (findings_segmentation(source, labels, affine, findings, "dpmm") for _ in range(2))
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert findings_segmentation(source, labels, affine, findings, "dino_ad").SOPInstanceUID != first.SOPInstanceUID


def test_first_findings_of_two_operating_points_are_two(made):
    _, affine, labels, findings, source = made
    other_labels, others = extract_findings(scores(), ScanGrid(SHAPE, affine, 2), 2.5)
    first, second = (
        {one.TrackingUID for one in findings_segmentation(source, found, affine, those, "dpmm").SegmentSequence}
        for found, those in ((labels, findings), (other_labels, others))
    )
    assert others[0].number == findings[0].number == 1 and others[0].voxels < findings[0].voxels
    # The second finding, of one score, is the same at both; the first is not.
    assert len(first) == len(second) == 2 and len(first & second) == 1


def test_a_scan_without_findings_gets_a_report_only(made):
    folder, affine, labels, _, source = made
    with pytest.raises(ValueError, match="at least one segment"):
        findings_segmentation(source, labels * 0, affine, [], "dpmm")
    findings_report(source, [], "dpmm", None).save_as(folder / "none.dcm")
    report = hd.sr.srread(folder / "none.dcm")
    assert report.content.get_volumetric_roi_measurement_groups() == []
    (scan,) = report.content.get_image_measurement_groups()
    assert [(m.name.meaning, m.value) for m in scan.get_measurements()] == [("Number of findings", 0)]


def test_a_resampled_scan_keeps_its_own_geometry(made):
    folder, affine, _, _, _ = made
    finer = affine @ np.diag([1, 1, 0.5, 1])
    shape = (*SHAPE[:2], 2 * SHAPE[2])
    source = source_of(folder / "series", shape, finer)
    assert source.slices is None
    values = np.repeat(scores(), 2, axis=2)
    labels, findings = extract_findings(values, ScanGrid(shape, finer, 2), 1.0)
    segmentation = findings_segmentation(source, labels, finer, findings, "dpmm")
    volume = segmentation.get_volume(combine_segments=True)
    centre = (volume.affine @ [*np.argwhere(volume.array == 2).mean(0), 1])[:3]
    np.testing.assert_allclose(centre, (LPS @ finer @ [*np.argwhere(labels == 2).mean(0), 1])[:3], atol=1e-3)


def test_a_resampled_scan_may_have_more_findings_than_a_byte_counts(tmp_path):
    affine, shape = np.diag([-1.0, -1.0, 3.0, 1.0]), (60, 40, 2)
    folder = write_series(tmp_path / "series", np.zeros(shape), affine)
    finer = affine @ np.diag([1, 1, 0.5, 1])
    values = np.zeros((60, 40, 4), np.float32)
    values[::3, ::3, 1] = np.linspace(5, 2, 280).reshape(20, 14)
    labels, findings = extract_findings(values, ScanGrid(values.shape, finer, 2), 1.0)
    segmentation = findings_segmentation(source_of(folder, values.shape, finer), labels, finer, findings, "dpmm")
    segmentation.save_as(tmp_path / "seg.dcm")
    volume = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    numbers, counts = np.unique(volume.array[volume.array > 0], return_counts=True)
    assert numbers.tolist() == list(range(1, 281)) and set(counts) == {1}


@pytest.mark.parametrize("no_spacing", ["", "its DICOM header states no pixel spacing"])
def test_a_radiograph_without_geometry(tmp_path, no_spacing):
    path = write_radiograph(tmp_path / "chest.dcm", 30, 20)
    values = np.zeros((30, 20), np.float32)
    values[4:9, 6:8] = 2
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    labels, findings = extract_findings(values, ScanGrid((30, 20), affine, no_spacing=no_spacing), 1.0)
    source = source_of(path, labels.shape, affine)
    segmentation = findings_segmentation(source, labels, affine, findings, "dpmm")
    report = findings_report(source, findings, "dpmm", segmentation)
    segmentation.save_as(tmp_path / "seg.dcm")
    report.save_as(tmp_path / "sr.dcm")
    np.testing.assert_array_equal(dcmread(tmp_path / "seg.dcm").pixel_array.squeeze() > 0, labels.T > 0)
    (group,) = hd.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    measured = set() if no_spacing else {"Area", "Diameter"}
    assert {m.name.meaning for m in group.get_measurements()} == {"Peak anomaly score"} | measured


def test_files_that_share_their_uid_cannot_be_referred_to(tmp_path):
    folder = write_series(tmp_path / "s", np.zeros(SHAPE), np.diag([-1.0, -1, 3, 1]))
    for path in folder.iterdir():
        data = dcmread(path)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        data.save_as(path)
    with pytest.raises(ValueError, match="share a SOPInstanceUID"):
        source_of(folder, SHAPE, np.diag([-1.0, -1, 3, 1]))


def test_another_size_is_said(made):
    with pytest.raises(ValueError, match="no DICOM image of 20 x 16 pixels found, but one of 16 x 20"):
        source_of(made[0] / "series", (16, 20, 3), np.eye(4))


def test_files_without_preamble_are_found_by_the_reader_too(made, tmp_path):
    folder, affine, labels, findings, source = made
    for file in (folder / "series").iterdir():
        file.write_bytes(file.read_bytes()[132:])
    again = source_of(folder / "series", SHAPE, affine)
    assert [one.SOPInstanceUID for one in again.headers] == [one.SOPInstanceUID for one in source.headers]
    assert again.slices == source.slices == tuple(range(SHAPE[2]))
    assert findings_segmentation(again, labels, affine, findings, "dpmm").number_of_segments == 2


def test_of_two_phases_the_chosen_one_is_referred_to(tmp_path):
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    for seed in (1, 2):
        write_series(tmp_path / "both", np.full(SHAPE, seed), affine, seed=seed)
    for file in (tmp_path / "both").iterdir():
        header = dcmread(file)
        header.SeriesNumber = int(header.pixel_array[0, 0])
        header.save_as(file)
    for series in ("1", "2"):
        source = source_of(tmp_path / "both", SHAPE, affine, series)
        assert {str(header.SeriesNumber) for header in source.headers} == {series}


def labelled(folder: Path, affine):
    """What stands before ``SaveDicomd`` in the postprocessing, for a scan that has just been read."""
    image = LoadScan()(folder)
    labels, findings = extract_findings(scores(), ScanGrid(SHAPE, affine, 2), 1.0)
    pred = MetaTensor(torch.from_numpy(labels.astype(np.uint8))[None], meta=dict(image.meta))
    return {"pred": pred, "finding_numbers": labels, "findings": findings, "scan": {"image_score": 1.0}}


def test_a_tilted_gantry_is_told_of_once(tmp_path, caplog):
    affine = affine_of("LPS")
    affine[1, 2] = 1.0
    folder = write_series(tmp_path / "series", np.arange(np.prod(SHAPE)).reshape(SHAPE), affine)
    result = SaveDicomd("pred", tmp_path / "out", "dpmm")(labelled(folder, affine))
    assert set(result["saved"]) == {"findings_seg", "findings_sr"} and caplog.text.count("gantry tilt") == 1


def test_headers_that_lack_something_make_a_note_and_our_mistakes_an_error(tmp_path, monkeypatch):
    affine = affine_of("LPS")
    folder = write_series(tmp_path / "series", np.arange(np.prod(SHAPE)).reshape(SHAPE), affine)
    item, save = labelled(folder, affine), SaveDicomd("pred", tmp_path / "out", "dpmm")
    with pytest.raises(KeyError, match="findings"):
        save({key: value for key, value in item.items() if key != "findings"})
    for path in folder.iterdir():
        header = dcmread(path)
        del header.StudyInstanceUID
        header.save_as(path)
    said = []
    monkeypatch.setattr(save_dicom.logger, "debug", lambda *args, **more: said.append(more))
    (note,) = save(item)["notes"]
    assert note.startswith("no DICOM of its findings is written: ") and "StudyInstanceUID" in note
    assert said == [{"exc_info": True}]
