"""``dino-uad init``: bundles that are one's own, whatever the permissions of the package that they came with."""

import os
import shutil

import pytest

from dino_uad import bundle_run
from workflows import BUNDLES


def modes(folder):
    return {oct(path.stat().st_mode & 0o777) for path in [folder, *folder.rglob("*")] if path.is_dir()}, {
        oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such permissions")
def test_bundles_of_a_read_only_package_can_be_edited_and_are_as_private_as_other_files(tmp_path, monkeypatch):
    package = tmp_path / "package" / "dpmm"
    for part in ("configs", "docs"):
        shutil.copytree(BUNDLES / "dpmm" / part, package / part)
    (package / "models").mkdir()
    (package / "models" / "model.pt").write_bytes(b"of a run")
    for path in [package, *package.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setattr(bundle_run, "shipped_bundles", lambda: {"dpmm": package})
    before = os.umask(0o077)
    try:
        bundle_run.init(str(tmp_path / "mine"))
    finally:
        os.umask(before)
        for path in [package, *package.rglob("*")]:
            path.chmod(0o755)
    made = tmp_path / "mine" / "dpmm"
    assert modes(made) == ({"0o700"}, {"0o600"}) and not (made / "models").exists()
    assert (made / "configs" / "train.json").read_bytes() == (BUNDLES / "dpmm/configs/train.json").read_bytes()
    with pytest.raises(FileExistsError, match="is there already and stays as it is"):
        bundle_run.init(str(tmp_path / "mine"))
