"""A stack lies where its positions say: any order, any direction, tilted, with rounded numbers, enhanced."""

import itk
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_files import AXIAL, CORONAL, SAGITTAL, counted, dataset, write, write_slices
from dino_uad.transforms import LoadScan

RAS = np.diag([-1, -1, 1])
ANGLE = np.deg2rad(25)
OBLIQUE = (1, 0, 0, 0, np.cos(ANGLE), np.sin(ANGLE))


def across(orientation):
    return np.cross(orientation[:3], orientation[3:])


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("order", [1, -1])
def test_every_voxel_lies_where_its_file_says(tmp_path, caplog, orientation, order):
    values, step = counted(), order * 4.0 * across(orientation)
    write_slices(tmp_path / "s", values, step, orientation)
    image = LoadScan()(tmp_path / "s")
    for voxel in np.ndindex(values.shape):
        found = np.argwhere(image[0].numpy() == values[voxel])[0]
        place = (
            np.array([10, 20, 30])
            + 2 * voxel[0] * np.array(orientation[:3])
            + 3 * voxel[1] * np.array(orientation[3:])
            + voxel[2] * step
        )
        np.testing.assert_allclose((image.meta["scan_affine"] @ [*found, 1])[:3], RAS @ place, atol=1e-4)
    assert "evenly" not in caplog.text


def test_agrees_with_itk_on_an_untilted_series(tmp_path):
    folder = write_slices(tmp_path / "s", counted(), 4.0 * across(OBLIQUE), OBLIQUE)
    names = itk.GDCMSeriesFileNames.New()
    names.SetDirectory(str(folder))
    expected = itk.imread(names.GetFileNames(names.GetSeriesUIDs()[0]), itk.F)
    image = LoadScan()(folder)
    np.testing.assert_array_equal(image[0], itk.array_from_image(expected).T)
    direction = itk.array_from_matrix(expected.GetDirection()) * np.array(expected.GetSpacing())
    np.testing.assert_allclose(image.meta["scan_affine"][:3, :3], RAS @ direction, atol=1e-5)
    np.testing.assert_allclose(image.meta["scan_affine"][:3, 3], RAS @ np.array(expected.GetOrigin()), atol=1e-5)


def test_gantry_tilt_shears_the_affine_and_is_told(tmp_path, caplog):
    step = np.array([0, 4 * np.tan(np.deg2rad(20)), 4.0])
    image = LoadScan()(write_slices(tmp_path / "ct", counted(), step, Modality="CT"))
    np.testing.assert_allclose(image.meta["scan_affine"][:3, 2], RAS @ step, atol=1e-5)
    assert "gantry tilt of 20.0 degrees" in caplog.text and "evenly" not in caplog.text


@pytest.mark.parametrize("digits", [6, 3, 1])
def test_rounded_positions_are_even(tmp_path, caplog, digits):
    LoadScan()(write_slices(tmp_path / "s", counted(), 2.37 * across(OBLIQUE), OBLIQUE, digits=digits))
    assert "evenly" not in caplog.text


@pytest.mark.parametrize("digits", [6, 0])
def test_a_missing_slice_is_not_rounding(tmp_path, caplog, digits):
    folder = write_slices(tmp_path / "s", counted(), (0, 0, 1.0), digits=digits)
    (folder / "03.dcm").unlink()
    LoadScan()(folder)
    assert "not evenly spaced" in caplog.text


def enhanced(values, order, slope=lambda k: 1, time_points=1):
    """An enhanced object whose frames come in ``order``; each carries its position and slope."""

    def item(**tags):
        group = Dataset()
        for name, value in tags.items():
            setattr(group, name, value)
        return Sequence([group])

    frames = []
    for time in range(time_points):
        for k in order:
            frame = Dataset()
            frame.PlanePositionSequence = item(ImagePositionPatient=["1", "2", str(3 + 4.0 * k)])
            frame.PixelValueTransformationSequence = item(RescaleSlope=str(slope(k)), RescaleIntercept="0")
            frame.FrameContentSequence = item(StackID="1", TemporalPositionIndex=time + 1)
            frames.append(frame)
    shared = Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=["3", "2"], SliceThickness="4")
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=list(map(str, AXIAL)))
    pixels = np.ascontiguousarray(np.stack([values[:, :, k].T for k in order] * time_points))
    tags = {"SharedFunctionalGroupsSequence": Sequence([shared]), "PerFrameFunctionalGroupsSequence": Sequence(frames)}
    return dataset(pixels, "enhanced MR", **tags)


def test_enhanced_frames_are_sorted_by_position_and_rescaled_each(tmp_path):
    values, order = counted(), [3, 5, 0, 2, 1, 4]
    image = LoadScan()(write(tmp_path / "e", enhanced(values, order, slope=lambda k: 0.5 + k)))
    np.testing.assert_allclose(image[0], values * (0.5 + np.arange(6)), rtol=1e-6)
    np.testing.assert_allclose(image.meta["scan_affine"], [[-2, 0, 0, -1], [0, -3, 0, -2], [0, 0, 4, 3], [0, 0, 0, 1]])


def test_enhanced_time_points_are_several_stacks(tmp_path):
    path = write(tmp_path / "e.dcm", enhanced(counted(), range(6), time_points=2))
    with pytest.raises(ValueError, match=r"2 stacks .* time point 1; .* time point 2"):
        LoadScan()(path)
