"""What is read of tables and notes, whatever they hold."""

import gzip
import zipfile

import pytest

from dino_uad.data import telling
from dino_uad.data.telling import read_text


def test_a_book_is_read_no_further_than_any_file(tmp_path, monkeypatch):
    """What a few kilobytes would expand to."""
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as book:
        for sheet in range(4):
            book.writestr(f"xl/worksheets/sheet{sheet}.xml", str(sheet) * 1000)
        book.writestr("xl/media/image1.png", "no text")
    assert read_text(tmp_path / "a.xlsx") == " ".join(str(sheet) * 1000 for sheet in range(4))
    monkeypatch.setattr(telling, "LARGEST", 1500)
    assert read_text(tmp_path / "a.xlsx") == "0" * 1000 + " " + "1" * 500


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_table_says_nothing(tmp_path, damage):
    content = gzip.compress(b"name,label\n" + b"\n".join(b"%d.png,%d" % (k * 7919 % 1000, k % 2) for k in range(2000)))
    middle = len(content) // 2
    broken = content[:middle] if damage == "cut" else content[:middle] + b"\xff" * 40 + content[middle + 40 :]
    (tmp_path / "a.csv.gz").write_bytes(broken)
    assert read_text(tmp_path / "a.csv.gz") == ""
