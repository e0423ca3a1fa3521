import contextlib
import errno
import stat
import zipfile

import pytest

from dino_uad.export import archive
from dino_uad.export.archive import extract_archive, write_archive


def make_zip(path, *names, mode=None, content=b"x"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name  # as an attacker writes it: the constructor would tidy it
            info.compress_type = zipfile.ZIP_DEFLATED
            if mode is not None:
                info.external_attr = mode << 16
            file.writestr(info, content)
    return path


def test_the_same_content_gives_the_same_bytes(tmp_path):
    source = tmp_path / "file"
    source.write_bytes(b"from a file")
    write_archive({"b/2": b"two", "b/1": source}, tmp_path / "first.zip")
    source.chmod(0o600)
    source.touch()
    write_archive({"b/1": b"from a file", "b/2": b"two"}, tmp_path / "second.zip")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "first.zip") as file:
        assert file.namelist() == ["b/1", "b/2"]
        assert {info.external_attr >> 16 for info in file.infolist()} == {stat.S_IFREG | 0o644}


def test_what_was_written_comes_back(tmp_path):
    write_archive({"b/configs/a.json": b"{}", "b/LICENSE": b"text"}, tmp_path / "b.zip")
    (tmp_path / "out").mkdir()
    assert extract_archive(tmp_path / "b.zip", tmp_path / "out") == "b"
    assert (tmp_path / "out" / "b" / "configs" / "a.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    "names",
    [
        ("b/../../evil",),
        ("../evil",),
        ("/etc/evil",),
        ("b//evil",),
        ("b/./evil",),
        ("b\\..\\evil",),
        ("C:/evil",),
        ("b/evil:stream",),
        ("b/a\x00.txt",),
        ("b/new\nline",),
        ("b/dot.",),
        ("b/same", "b/same"),
        ("b/Same", "b/sAME"),
        ("b/file", "b/file/below"),
        ("b/file", "c/file"),
        ("at-the-top",),
        ("b/file", "__MACOSX/../evil"),
        ("b/file", "__MACOSX/same", "__MACOSX/../../.DS_Store"),
        ("__MACOSX/._b", ".DS_Store"),
        ("b/file", "__macosx/evil"),
        (),
    ],
)
def test_unsafe_names_are_refused_and_nothing_is_written(tmp_path, names):
    (tmp_path / "out").mkdir()
    with pytest.warns(UserWarning) if len(set(names)) < len(names) else contextlib.nullcontext():
        path = make_zip(tmp_path / "evil.zip", *names)
    with pytest.raises(ValueError, match=r"evil\.zip"):
        extract_archive(path, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["evil.zip", "out"]


def test_what_macos_adds_is_left_out(tmp_path):
    """As Finder's "Compress", and ``zip -r`` of a folder that it has shown, write them."""
    added = ("__MACOSX/._b", "__MACOSX/b/._file", ".DS_Store", "b/.DS_Store", "b/more/.DS_Store")
    path = make_zip(tmp_path / "mac.zip", "b/", "b/file", *added)
    (tmp_path / "out").mkdir()
    assert extract_archive(path, tmp_path / "out") == "b"
    assert [one.relative_to(tmp_path / "out").as_posix() for one in (tmp_path / "out").rglob("*")] == ["b", "b/file"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_special_files_are_refused(tmp_path, kind):
    path = make_zip(tmp_path / "link.zip", "b/link", mode=kind | 0o777, content=b"/etc/passwd")
    with pytest.raises(ValueError, match="link or a special file"):
        extract_archive(path, tmp_path)


def test_modes_of_the_zip_are_not_taken_over(tmp_path):
    path = make_zip(tmp_path / "suid.zip", "b/run", mode=stat.S_IFREG | 0o6777)
    extract_archive(path, tmp_path)
    assert not (tmp_path / "b" / "run").stat().st_mode & 0o6111


def test_bombs_are_refused_by_ratio_size_and_count(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "bomb.zip", "b/zeros", content=bytes(10_000_000))
    with pytest.raises(ValueError, match="10000000 bytes"):
        extract_archive(path, tmp_path)
    path = make_zip(tmp_path / "fine.zip", *(f"b/{i}" for i in range(4)))
    monkeypatch.setattr(archive, "MAX_FILES", 3)
    with pytest.raises(ValueError, match="4 files"):
        extract_archive(path, tmp_path)
    monkeypatch.setattr(archive, "MAX_FILES", 4)
    monkeypatch.setattr(archive, "MAX_BYTES", 3)
    with pytest.raises(ValueError, match="4 bytes"):
        extract_archive(path, tmp_path)


def test_a_size_that_the_table_of_contents_understates_is_an_error(tmp_path):
    path = make_zip(tmp_path / "lie.zip", "b/zeros", content=bytes(1000))
    honest = path.read_bytes()
    path.write_bytes(honest.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="not an intact zip"):
        extract_archive(path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all" * 10])
def test_what_is_no_zip_is_said_to_be_none(tmp_path, content):
    (tmp_path / "no.zip").write_bytes(content)
    with pytest.raises(ValueError, match="not an intact zip"):
        extract_archive(tmp_path / "no.zip", tmp_path)


def test_a_damaged_member_is_an_error(tmp_path):
    path = make_zip(tmp_path / "bad.zip", "b/text", content=b"some text that is long enough to be compressed " * 20)
    content = bytearray(path.read_bytes())
    content[50] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not an intact zip"):
        extract_archive(path, tmp_path)


@pytest.mark.parametrize("name", ['say "no"', "a:b", "trailing ", "trailing."])
def test_nothing_is_packed_that_could_not_be_unpacked(tmp_path, name):
    with pytest.raises(ValueError, match="unsafe name, which import refuses"):
        write_archive({f"{name}/LICENSE": b"text"}, tmp_path / "b.zip")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_of_with_the_folder(tmp_path, monkeypatch):
    write_archive({"b/LICENSE": b"text"}, tmp_path / "b.zip")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match=r"cannot write .*LICENSE \(No space left on device\); free space"):
        extract_archive(tmp_path / "b.zip", tmp_path / "out")
