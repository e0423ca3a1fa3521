"""What a folder of DICOM files is: one scan, several stacks, single pictures, and what has no image."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicom_files import CORONAL, SAGITTAL, counted, dataset, write, write_slices
from dino_uad.data import datalist
from dino_uad.transforms import LoadScan, LoadScand, dicom_patients, dicom_scans
from dino_uad.transforms.dicom.folder import dicom_patient

VALUES = counted()


def two(folder, **tags):
    """Two images of every slice that differ in ``tags``: name -> (first, second)."""
    for number in range(2):
        own = {name: values[number] for name, values in tags.items()}
        write_slices(folder, VALUES + 1000 * number, name=f"{number}_{{k:02d}}", **own)
    return folder


SEVERAL = {
    "phases": ({"AcquisitionNumber": (1, 2)}, "acquisition 1; .*acquisition 2"),
    "b-values": ({"DiffusionBValue": (0.0, 1000.0)}, "b-value 0.0; .*b-value 1000.0"),
    "echoes": ({"EchoTime": ("12", "80")}, "echo time 12.*; .*echo time 80"),
    "magnitude and phase": ({"ImageType": (["ORIGINAL", "M"], ["ORIGINAL", "P"])}, "image type ORIGINAL/M; .*/P"),
    "times": ({"TemporalPositionIdentifier": (1, 2)}, "time point 1; .*time point 2"),
    "nothing": ({}, "repeat 1; .*repeat 2"),
    "series": ({"series": ("1.2.3", "1.2.4"), "SeriesNumber": (3, 4)}, "series 3, .*; series 4, "),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_images_at_one_place_are_listed_and_can_be_chosen(tmp_path, case):
    tags, listed = SEVERAL[case]
    folder = two(tmp_path / "s", **tags)
    with pytest.raises(ValueError, match=f"2 stacks .*{listed}.*Choose with series"):
        LoadScan()(folder)
    second = listed.split(";")[1].strip(" .*,").replace("/P", "image type ORIGINAL/P")
    image = LoadScan()(folder, series=f"*{second}*")
    np.testing.assert_array_equal(image[0], VALUES + 1000)


def test_slices_of_two_phases_that_lie_between_each_other_are_told_apart(tmp_path):
    write_slices(tmp_path, VALUES, name="a{k}", AcquisitionNumber=1)
    write_slices(tmp_path, VALUES, name="b{k}", AcquisitionNumber=2, origin=(10, 20, 31))
    with pytest.raises(ValueError, match=r"acquisition 1; .*acquisition 2"):
        LoadScan()(tmp_path)


def test_localiser_and_scan_in_one_series(tmp_path):
    write_slices(tmp_path / "s", VALUES)
    write_slices(tmp_path / "s", VALUES[..., :2], (4, 0, 0), SAGITTAL, name="loc{k}")
    write_slices(tmp_path / "s", VALUES[..., :1], (0, 4, 0), CORONAL, name="cor{k}")
    with pytest.raises(ValueError, match=r"3 stacks .*axial, 6 x 5x4; .*sagittal, 2 x 5x4; .*coronal, 1 x 5x4"):
        LoadScan()(tmp_path / "s")
    np.testing.assert_array_equal(LoadScan()(tmp_path / "s", series="*axial, 6*")[0], VALUES)


def test_data_list_names_the_stack_that_the_loader_takes(tmp_path):
    for patient in "abc":
        two(tmp_path / patient, DiffusionBValue=(0.0, 1000.0), PatientID=(patient, patient))
    with pytest.raises(ValueError, match=r"a: 2 stacks .*b-value 1000.0.*--train_data#series"):
        datalist(tmp_path, "train")
    with pytest.raises(ValueError, match=r"a: cannot be read: 2 stacks .*b-value 1000.0"):  # of inference, one by one
        LoadScand("image")(datalist(tmp_path, "all")[0])
    items = datalist(tmp_path, "all", series="*b-value 1000*")
    assert len(items) == 3
    np.testing.assert_array_equal(LoadScand("image")(items[0])["image"][0], VALUES + 1000)


def test_a_damaged_file_of_a_series_is_named(tmp_path):
    (write_slices(tmp_path / "s", VALUES) / "note.dcm").write_text("not DICOM")
    with pytest.raises(ValueError, match=r"s: cannot be read: note\.dcm: no DICOM element"):
        LoadScan()(tmp_path / "s")


@pytest.mark.parametrize("series", ["1.2.3", ""])
@pytest.mark.parametrize("tag", ["PatientID", "StudyInstanceUID"])
def test_slices_of_several_owners_are_no_scan_though_their_series_is_the_same(tmp_path, series, tag):
    """As anonymised files have it; slices that continue each other, copies of UIDs included."""
    uid = {"SOPInstanceUID": lambda k: f"1.9.{k}"}
    for number in (1, 2):
        origin = (10, 20, 30 + 24 * number)
        write_slices(
            tmp_path, VALUES, name=f"{number}{{k}}", origin=origin, series=series, **uid | {tag: f"1.{number}"}
        )
    word = "patient" if tag == "PatientID" else "study"
    with pytest.raises(ValueError, match=rf"2 stacks .* 6 x 5x4, {word} 1; .* 6 x 5x4, {word} 2; .*own folder"):
        LoadScan()(tmp_path)


@pytest.mark.parametrize("name", ["I{k}", "{k}.IMA", "1.2.3.{k}", "{k}.dcm"])
@pytest.mark.parametrize("lost", [2, 5])
def test_a_slice_of_which_only_the_name_is_left_is_named(tmp_path, name, lost):
    write_slices(tmp_path / "s", VALUES, name=name)
    (tmp_path / "s" / "note.txt").touch()
    LoadScan()(tmp_path / "s")
    (tmp_path / "s" / name.format(k=lost)).write_bytes(b"")
    (item,) = datalist(tmp_path, "all")
    with pytest.raises(ValueError, match=rf"s: cannot be read: {name.format(k=lost)}: the file is empty"):
        LoadScan()(item["image"])


def test_headers_that_pydicom_cannot_parse_are_told_of_with_their_file(tmp_path):
    """One letter of a value representation: pydicom raises NotImplementedError once the value is asked for."""
    folder = write_slices(tmp_path / "s", VALUES)
    patient = dicom_patient(folder)
    content = (folder / "00.dcm").read_bytes()
    (folder / "00.dcm").write_bytes(content.replace(b"\x10\x00\x20\x00LO", b"\x10\x00\x20\x00LJ"))
    assert dicom_patient(folder) == patient
    (item,) = datalist(tmp_path, "all")
    with pytest.raises(ValueError, match=r"s: cannot be read: 00\.dcm: Unknown Value Representation"):
        LoadScan()(item["image"])


@pytest.mark.parametrize("folders", [("",), ("normal", "haemorrhage")])
def test_patients_exported_into_one_folder_are_listed(tmp_path, folders):
    for folder in folders:
        for patient in "abc":
            series = f"1.{ord(patient)}"
            write_slices(tmp_path / folder, VALUES, PatientID=patient, series=series, name=patient + "{k}.dcm")
    with pytest.raises(ValueError, match=r"3 stacks of DICOM images: .*put each into its own folder"):
        datalist(tmp_path, "train")


def test_copies_of_a_file_count_once(tmp_path):
    folder = write_slices(tmp_path / "s", VALUES)
    (folder / "02 (copy).dcm").write_bytes((folder / "02.dcm").read_bytes())
    np.testing.assert_array_equal(LoadScan()(folder)[0], VALUES)


@pytest.mark.parametrize("kind", ["slices", "radiographs", "frames"])
def test_files_of_one_uid_are_no_copies_if_they_show_something_else(tmp_path, caplog, kind):
    """As anonymisers leave them that write one UID into every file."""
    if kind == "slices":
        write_slices(tmp_path / "s", VALUES, SOPInstanceUID="1.9")
        (tmp_path / "s" / "copy.dcm").write_bytes((tmp_path / "s" / "02.dcm").read_bytes())
        np.testing.assert_array_equal(LoadScan()(tmp_path / "s")[0], VALUES)
        lost = 5
    else:
        for k in range(3):
            pixels = VALUES[..., k : k + 2].T if kind == "frames" else VALUES[..., k]
            write(tmp_path / "s" / f"{k}.dcm", dataset(pixels, "DX", SOPInstanceUID="1.9"))
        (tmp_path / "s" / "copy.dcm").write_bytes((tmp_path / "s" / "2.dcm").read_bytes())
        scans, _ = dicom_scans(tmp_path / "s")
        assert [scan.path.name for scan in scans] == ["0.dcm", "1.dcm", "2.dcm"]
        lost = 2
    assert f"s: {lost} DICOM files have the SOPInstanceUID of another" in caplog.text


def test_a_copy_that_is_packed_otherwise_counts_once(tmp_path):
    folder = write_slices(tmp_path / "s", VALUES)
    data = pydicom.dcmread(folder / "02.dcm")
    data.compress(RLELossless, generate_instance_uid=False)
    data.save_as(folder / "packed.dcm")
    np.testing.assert_array_equal(LoadScan()(folder)[0], VALUES)


def test_radiographs_of_one_series_are_single_pictures(tmp_path):
    for view in ("PA", "LL"):
        write(tmp_path / "p" / view, dataset(VALUES[..., 0], "DX", ViewPosition=view))
    assert [item["image"] for item in datalist(tmp_path, "all")] == [str(tmp_path / "p" / v) for v in ("LL", "PA")]


@pytest.mark.parametrize("name", ["x.MR.0001.{k:04d}.IMA", "{k:02d}.dicom", "{k:02d}.img", "{k:02d}.MR", "IM{k:06d}"])
def test_dicom_is_known_by_its_content(tmp_path, name):
    write_slices(tmp_path / "s", VALUES, name=name)
    assert [item["image"] for item in datalist(tmp_path, "all")] == [str(tmp_path / "s")]
    np.testing.assert_array_equal(LoadScan()(tmp_path / "s")[0], VALUES)


def test_files_without_preamble(tmp_path):
    folder = write_slices(tmp_path / "s", VALUES, name="i{k}")
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    np.testing.assert_array_equal(LoadScan()(folder)[0], VALUES)


def test_what_has_no_image_is_passed_over_with_its_reason(tmp_path):
    index = Dataset()
    index.file_meta = FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID, index.file_meta.MediaStorageSOPInstanceUID = "1.2.840.10008.1.3.10", "1.2"
    index.file_meta.TransferSyntaxUID, index.FileSetID = ExplicitVRLittleEndian, "CD"
    write(tmp_path / "DICOMDIR", index)
    write(tmp_path / "report" / "sr.dcm", dataset(None, "SR"))
    write_slices(tmp_path / "scan", VALUES)
    write(tmp_path / "scan" / "sr.dcm", dataset(None, "SR"))
    write(tmp_path / "scan" / "seg.dcm", dataset(VALUES.astype("u1"), "SEG"))
    assert [item["image"] for item in datalist(tmp_path, "all")] == [str(tmp_path / "scan")]
    scans, passed = dicom_scans(tmp_path / "scan")
    assert [scan.path for scan in scans] == [tmp_path / "scan"] and len(scans[0].files) == 6
    assert {path.name: reason.split(" (")[0] for path, reason in passed.items()} == {
        "sr.dcm": "DICOM object without pixels",
        "seg.dcm": "DICOM annotation",
    }
    assert dicom_scans(tmp_path / "report") == ([], {tmp_path / "report" / "sr.dcm": passed[scans[0].path / "sr.dcm"]})
    with pytest.raises(ValueError, match=r"no DICOM image found \(index of a DICOM medium"):
        LoadScan()(tmp_path / "DICOMDIR")


def test_patient_is_a_hash_that_scans_share(tmp_path):
    one = write_slices(tmp_path / "a", VALUES)
    other = write(tmp_path / "b.dcm", dataset(VALUES[..., 0], "DX"))
    stranger = write(tmp_path / "c.dcm", dataset(VALUES[..., 0], "DX", PatientID="J8"))
    nobody = write(tmp_path / "d.dcm", dataset(VALUES[..., 0], "DX", PatientID="", PatientName=""))
    assert dicom_patient(one) == dicom_patient(other) != dicom_patient(stranger)
    assert "J7" not in dicom_patient(one) and dicom_patient(nobody) == "" == dicom_patient(__file__)


@pytest.mark.parametrize(
    ("tag", "values", "expected"),
    [
        ("IssuerOfPatientID", ("", "A", "A"), "111"),
        ("IssuerOfPatientID", ("A", "", ""), "111"),
        ("IssuerOfPatientID", ("", "A", "B"), "123"),  # two people: whose the first is, is not known
        ("PatientBirthDate", ("19700101", "", "19700101"), "111"),
        ("PatientBirthDate", ("19700101", "", "19700102"), "123"),
    ],
)
def test_what_some_exports_leave_out_makes_no_second_patient(tmp_path, tag, values, expected):
    own = {} if tag == "IssuerOfPatientID" else {"PatientID": ""}
    pixels = VALUES[..., 0]
    scans = [write(tmp_path / f"{k}.dcm", dataset(pixels, "DX", **own, **{tag: v})) for k, v in enumerate(values)]
    stranger = write(tmp_path / "x.dcm", dataset(pixels, "DX", PatientID="J8"))
    *patients, other, nobody = dicom_patients([*scans, stranger, None])
    numbers = {patient: str(number) for number, patient in enumerate(dict.fromkeys(patients), 1)}
    distinct = "".join(numbers[patient] for patient in patients)
    assert distinct == expected and other not in patients and nobody == ""


def test_slices_of_which_some_lack_the_issuer_are_one_scan(tmp_path):
    write_slices(tmp_path, VALUES, IssuerOfPatientID=lambda k: "A" if k % 2 else "")
    np.testing.assert_array_equal(LoadScan()(tmp_path)[0], VALUES)


def test_stacks_of_one_name_are_listed_with_what_differs(tmp_path):
    write_slices(tmp_path / "s", VALUES[..., :3], name="a{k}")
    write_slices(tmp_path / "s", VALUES[..., 3:], name="b{k}", PixelSpacing=["1.5", "0.5"])
    listed = r"axial, 3 x 5x4, pixels 2 x 3 mm; .*axial, 3 x 5x4, pixels 0\.5 x 1\.5 mm; expected one"
    with pytest.raises(ValueError, match=listed):
        LoadScan()(tmp_path / "s")
    np.testing.assert_array_equal(LoadScan()(tmp_path / "s", series="*0.5 x 1.5 mm*")[0], VALUES[..., 3:])


def test_pictures_of_one_name_are_listed_by_their_files(tmp_path):
    for name in "ab":
        write(tmp_path / name, dataset(VALUES[..., 0], "DX", ViewPosition=name))
    with pytest.raises(ValueError, match=r"no position, 1 x 4x5, first file a; .* 1 x 4x5, first file b; expected one"):
        LoadScan()(tmp_path)
    assert LoadScan()(tmp_path, series="*first file b").shape == (1, 4, 5, 1)


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageOrientationPatient": ["0"] * 6},
        {"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]},
        {"ImagePositionPatient": ["1", "nan", "0"]},
    ],
)
def test_a_place_that_is_none_is_told_with_its_file(tmp_path, tags):
    write_slices(tmp_path / "s", VALUES, **{name: lambda k, v=value: v for name, value in tags.items()})
    ((name, value),) = tags.items()
    said = rf"s: cannot be read: 00\.dcm: found .*{name} {'/'.join(value)}.*; expected a place, and two directions"
    with pytest.raises(ValueError, match=said):
        LoadScan()(tmp_path / "s")
