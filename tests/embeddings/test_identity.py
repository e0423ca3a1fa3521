"""What an embedding was made from: no file that a reader opens may change unnoticed."""

from pathlib import Path

import numpy as np
import pytest

import dino_uad
from dino_uad import digests
from dino_uad.embeddings import identity
from dino_uad.embeddings.identity import code_version, entry_key, store_facts
from dino_uad.transforms import LoadScan, files_of
from helpers import backbone, load_unit

SHAPE = (4, 3, 2)
VALUES = np.arange(24, dtype="<f4")


def mhd(folder: Path, tag: str, parts: list[str]) -> Path:
    size = VALUES.nbytes // len(parts)
    for i, name in enumerate(parts):
        (folder / name).write_bytes(VALUES.tobytes()[i * size : (i + 1) * size])
    header = folder / "scan.mhd"
    header.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementSpacing = 1 1 1\nElementType = MET_FLOAT\n"
        f"ElementByteOrderMSB = False\nElementDataFile = {tag}\n"
    )
    return header


def nhdr(folder: Path, field: str, parts: list[str]) -> Path:
    mhd(folder, "LOCAL", parts)
    header = folder / "scan.nhdr"
    header.write_text(
        "NRRD0004\ntype: float\ndimension: 3\nsizes: 4 3 2\nencoding: raw\nendian: little\n"
        f"space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n{field}\n"
    )
    return header


CASES = {
    "mhd one file": lambda folder: mhd(folder, "values.raw", ["values.raw"]),
    "mhd name with a space": lambda folder: mhd(folder, "the values.raw", ["the values.raw"]),
    "mhd list": lambda folder: mhd(folder, "LIST\nb.raw\na.raw", ["b.raw", "a.raw"]),
    "mhd pattern": lambda folder: mhd(folder, "s%03d.raw 1 2 1", ["s001.raw", "s002.raw"]),
    "nhdr one file": lambda folder: nhdr(folder, "data file: values.raw", ["values.raw"]),
    "nhdr old spelling": lambda folder: nhdr(folder, "datafile: values.raw", ["values.raw"]),
    "nhdr list": lambda folder: nhdr(folder, "data file: LIST\nb.raw\na.raw", ["b.raw", "a.raw"]),
    "nhdr pattern": lambda folder: nhdr(folder, "data file: s%d.raw 1 2 1", ["s1.raw", "s2.raw"]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_detached_file_is_in_the_key_and_is_what_the_reader_opens(case, tmp_path):
    image = CASES[case](tmp_path)
    # The reader agrees: it opens these files, in this order.
    assert np.array_equal(np.ravel(LoadScan()(image).numpy()[0], order="F"), VALUES)
    data = [path for path in tmp_path.iterdir() if path.suffix == ".raw"]
    assert set(files_of(image)) == {image, *data}
    before = entry_key({"image": str(image)})
    for path in data:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"\x01")
        assert entry_key({"image": str(image)}) != before, path.name
        path.write_bytes(content)
    assert entry_key({"image": str(image)}) == before


@pytest.mark.parametrize(
    "names", [("a.hdr", "a.img"), ("a.img", "a.hdr"), ("a.hdr.gz", "a.img.gz"), ("A.IMG", "A.HDR")]
)
def test_both_halves_of_a_pair_are_in_the_key(names, tmp_path):
    for name in (*names, "ab.img"):
        (tmp_path / name).write_bytes(b"x" * 500)
    assert {path.name for path in files_of(tmp_path / names[0])} == set(names)


def test_all_files_of_a_series_are_in_the_key_also_below_it(tmp_path):
    for name in ("series/2.dcm", "series/1.dcm", "series/more/IM3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    entry = {"image": str(tmp_path / "series")}
    keys = [entry_key(entry)]
    for name in ("series/1.dcm", "series/more/IM3"):
        (tmp_path / name).write_text("other")
        keys.append(entry_key(entry))
    (tmp_path / "series/4.dcm").write_text("one more")
    assert len({*keys, entry_key(entry)}) == 4


def test_label_and_other_values_count_but_not_where_an_image_belongs(tmp_path):
    for name in ("image.png", "label.png", "copy.png", "more.nii"):
        (tmp_path / name).write_text("label" if name == "label.png" else "image")
    image, label, copy, more = (str(tmp_path / name) for name in ("image.png", "label.png", "copy.png", "more.nii"))
    key = entry_key({"image": image})
    assert key == entry_key({"image": copy, "group": "patient 1", "anomalous": 1})
    others = [{"label": label}, {"series": 2}, {"series": 3}, {"second": more}, {"image": [image, copy]}]
    assert len({key, *(entry_key({"image": image, **other}) for other in others)}) == 6
    before = entry_key({"image": image, "second": more})
    Path(more).write_text("changed")
    assert entry_key({"image": image, "second": more}) != before


def test_the_key_knows_the_code_of_the_preprocessing(tmp_path, monkeypatch):
    assert store_facts(load_unit, backbone())["code"] == code_version()
    for room in identity.ROOMS:
        path = tmp_path / room if room.endswith(".py") else tmp_path / room / "code.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x = 1\n")
    (tmp_path / "report").mkdir()
    monkeypatch.setattr(dino_uad, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(identity, "digest_code", digests.digest_code.__wrapped__)
    versions = [code_version()]
    (tmp_path / "transforms" / "code.py").write_text("x = 2\n")
    versions.append(code_version())
    (tmp_path / "products.py").write_text("x = 2\n")
    versions.append(code_version())
    (tmp_path / "report" / "page.py").write_text("what a report looks like changes no embedding")
    assert len(set(versions)) == 3 and code_version() == versions[2]
    monkeypatch.setattr(digests, "installed_version", lambda package: "another")
    assert code_version() not in versions
