"""Where a model may be written."""

import zipfile

import pytest
import torch

from dino_uad.handlers import FinishFit


def test_a_file_of_another_kind_is_not_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("of a year")
    (tmp_path / "models").mkdir()
    with zipfile.ZipFile(tmp_path / "table.xlsx", "w") as sheet:
        sheet.writestr("xl/workbook.xml", "")
    for name, kind in (("notes.txt", "a file that is no model"), ("table.xlsx", "a file"), ("models", "a folder")):
        with pytest.raises(ValueError, match=f"--model_file: found .*{name}, {kind}.*expected a new name"):
            FinishFit(None, [], str(tmp_path / name))


def test_a_new_name_and_an_older_model_are_taken_whole_or_not(tmp_path):
    torch.save({"score": torch.ones(2)}, tmp_path / "older")
    (tmp_path / "broken.pt").write_bytes((tmp_path / "older").read_bytes()[:90])
    (tmp_path / "empty").touch()
    for name in ("new", "older", "broken.pt", "empty"):
        assert FinishFit(None, [], str(tmp_path / name)).path == tmp_path / name
