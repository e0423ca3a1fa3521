import hashlib
import json
import logging
import shutil
import zipfile

import pytest
import torch
from small_bundle import BUNDLES, overrides

import dino_uad
from dino_uad.backbones.weights import store
from dino_uad.backbones.weights.registry import SOURCES, WeightSource
from dino_uad.export.bundle import export_bundle, import_bundle, package_files
from dino_uad.export.large_files import large_files
from dino_uad.export.needed import needed_files
from dino_uad.export.same_package import require_same_package

SMALL = overrides("dpmm")


def test_the_zip_holds_what_a_receiver_needs_and_nothing_of_the_run(exported):
    path = exported("dpmm")
    assert path.name == f"dpmm_v{dino_uad.__version__}.zip"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"dpmm"}
    for name in ("LICENSE", "models/model.pt", "dino_uad/__init__.py", "dino_uad/detector/detector.py"):
        assert f"dpmm/{name}" in names
    for name in ("metadata.json", "inference.json", "train.json", "evaluate.json", "logging.conf"):
        assert f"dpmm/configs/{name}" in names
    assert not [name for name in names if "pycache" in name or "/eval/" in name or name.startswith("dpmm/tests")]
    assert not [name for name in names if name.endswith(".safetensors")], "this bundle's backbone is not the student"
    carried = {name.split("/")[2] for name in names if name.startswith("dpmm/dino_uad/")}
    assert {"detector", "heads", "handlers", "metrics", "predictor.py"} <= carried
    assert not carried & {"bench", "compare", "demo", "distill"}


def test_a_shared_package_holds_what_the_configs_name_and_all_that_this_imports():
    smallest = needed_files([])
    names = {path.as_posix() for path in needed_files(['"$import dino_uad.demo"', '"dino_uad.demo.make_demo"'])}
    assert {"demo/__init__.py", "demo/phantom.py", "data/preparation.py"} <= names
    assert "demo/command.py" not in names and not {path for path in smallest if path.parts[0] == "demo"}
    assert "backbones/weights/dino_uad_tiny14.md" in names, "data files come with their folder"
    with pytest.raises(ValueError, match=r"dino_uad\.nets\.DPMM: named by a config, but dino_uad has no such module"):
        needed_files(['{"_target_": "dino_uad.nets.DPMM"}'])


def test_two_exports_are_the_same_bytes(exported, fitted, tmp_path):
    again = export_bundle(str(fitted("dpmm")), str(tmp_path), **SMALL)
    assert again.read_bytes() == exported("dpmm").read_bytes()


def test_overrides_become_part_of_the_configs(exported):
    with zipfile.ZipFile(exported("dpmm")) as archive:
        inference, train, metadata = (
            json.loads(archive.read(f"dpmm/configs/{name}.json")) for name in ("inference", "train", "metadata")
        )
        unchanged = archive.read("dpmm/configs/evaluate.json")
    assert inference["image_size"] == train["image_size"] == [56, 56]
    assert inference["network_def"]["head"]["n_components"] == 8
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [56, 56]
    assert metadata["network_data_format"]["outputs"]["pred"]["spatial_shape"] == [56, 56]
    assert unchanged == (BUNDLES / "dpmm" / "configs" / "evaluate.json").read_bytes()


def test_no_home_folder_is_shared(fitted, tmp_path):
    """A ``~`` is the receiver's."""
    shared = export_bundle(str(fitted("dpmm")), str(tmp_path), **SMALL, cache_dir="~/cache")
    with zipfile.ZipFile(shared) as archive:
        assert json.loads(archive.read("dpmm/configs/train.json"))["cache_dir"] == "~/cache"


def test_an_untrained_bundle_says_so(tmp_path):
    bundle = shutil.copytree(BUNDLES / "dpmm", tmp_path / "dpmm", ignore=shutil.ignore_patterns("models"))
    with pytest.raises(FileNotFoundError, match=r"model\.pt not found: run train first"):
        export_bundle(str(bundle), str(tmp_path / "dist"))
    with pytest.raises(FileNotFoundError, match="LICENSE"):
        export_bundle(str(tmp_path), str(tmp_path / "dist"))
    assert not (tmp_path / "dist").exists()


def test_a_model_that_does_not_fit_its_configs_is_not_exported(fitted, tmp_path):
    with pytest.raises(ValueError, match=r"fitted with \[56, 56\], this network has \[70, 70\].*overrides that train"):
        export_bundle(str(fitted("dpmm")), str(tmp_path), **SMALL | {"image_size": [70, 70]})
    with pytest.raises(ValueError, match=r"no config of dpmm takes image_sise: .*did you mean --image_size"):
        export_bundle(str(fitted("dpmm")), str(tmp_path), image_sise=[56, 56])
    with pytest.raises(ValueError, match=r"takes slices#min_foregroun: .*did you mean --slices#min_foreground"):
        export_bundle(str(fitted("dpmm")), str(tmp_path), **SMALL | {"slices#min_foregroun": 0.3})
    with pytest.raises(ValueError, match=r"takes max_epochs: --max_epochs: found 'many', expected a whole number"):
        export_bundle(str(fitted("dpmm")), str(tmp_path), **SMALL | {"max_epochs": "many"})
    with pytest.raises(ValueError, match="--max_epochs is 0; expected a whole number of at least 1"):
        export_bundle(str(fitted("dpmm")), str(tmp_path), **SMALL | {"max_epochs": 0})
    assert not list(tmp_path.iterdir())


def test_a_version_without_a_changelog_entry_is_refused(fitted, tmp_path):
    bundle = shutil.copytree(fitted("dpmm"), tmp_path / "dpmm")
    metadata = bundle / "configs" / "metadata.json"
    metadata.write_text(metadata.read_text().replace(f'"version": "{dino_uad.__version__}"', '"version": "99.0.0"'))
    with pytest.raises(ValueError, match=r"changelog has no entry for version 99\.0\.0"):
        export_bundle(str(bundle), str(tmp_path / "dist"), **SMALL)


def test_a_model_over_the_zoos_limit_is_named_with_its_size(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("dino_uad.export.bundle.ZOO_LIMIT", 1 << 10)
    with pytest.warns(UserWarning, match="MiB, the model zoo takes"):
        export_bundle(str(fitted("dpmm")), str(tmp_path), **SMALL)


@pytest.mark.parametrize("arch", [name for name, source in SOURCES.items() if source.url and source.sha256])
def test_large_files_names_what_the_store_looks_for(arch, tmp_path, monkeypatch):
    lines = large_files(arch).decode().splitlines()
    assert lines[0] == "large_files:"
    fields = dict(line[2:].split(": ", 1) for line in lines[1:])
    fields = {key: json.loads(value) for key, value in fields.items()}
    assert fields == {
        "path": f"models/{SOURCES[arch].file_names[0]}",
        "url": SOURCES[arch].url,
        "hash_type": "sha256",
        "hash_val": SOURCES[arch].sha256,
    }
    monkeypatch.setattr(store, "BUNDLE_MODELS", tmp_path / "models")
    monkeypatch.setenv(store.ENVIRONMENT_VARIABLE, str(tmp_path / "empty"))
    assert store.locate(arch) is None
    (tmp_path / "models").mkdir()
    (tmp_path / fields["path"]).touch()
    assert store.locate(arch) == tmp_path / fields["path"]


def test_gated_weights_have_no_address():
    assert large_files("dinov3_vits16") is None


def test_a_bundle_on_packaged_weights_takes_them_along(monkeypatch):
    source = WeightSource(name="student", file_names=("s.safetensors",), licence="Apache-2.0", packaged="s.safetensors")
    monkeypatch.setitem(SOURCES, "student", source)
    assert "dino_uad/backbones/weights/s.safetensors" in package_files("student", [])
    assert not [name for name in package_files("dinov2_vits14", []) if name.endswith(".safetensors")]
    assert large_files("student") is None


def test_import_gives_back_the_bundle_whole_or_not_at_all(exported, tmp_path):
    path = exported("dpmm")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for other in ("0000", ""):  # of a shell's variable that is not set
        with pytest.raises(ValueError, match=f"expected {other}:"):
            import_bundle(str(path), str(tmp_path / "b"), sha256=other)
    found = import_bundle(str(path), str(tmp_path / "b"), sha256=sha256)
    assert found == tmp_path / "b" / "dpmm"
    assert torch.load(found / "models" / "model.pt", weights_only=True)["fingerprint"].shape == (1024,)
    with pytest.raises(FileExistsError, match="move it away"):
        import_bundle(str(path), str(tmp_path / "b"))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("other/README.md", "no bundle")
    with pytest.raises(ValueError, match="other/ lacks LICENSE"):
        import_bundle(str(tmp_path / "other.zip"), str(tmp_path / "b"))
    assert [file.name for file in (tmp_path / "b").iterdir()] == ["dpmm"]


def test_another_version_of_the_package_is_an_error_and_other_code_a_warning(tmp_path, caplog):
    require_same_package(str(tmp_path))
    carried = tmp_path / "dino_uad"
    carried.mkdir()
    (carried / "__init__.py").write_text(f'__version__ = "{dino_uad.__version__}"\n')
    with caplog.at_level(logging.WARNING):
        require_same_package(str(tmp_path))
    assert "code differs" in caplog.text
    (carried / "__init__.py").write_text('__version__ = "9.9.9"\n')
    with pytest.raises(RuntimeError, match=r"carries dino_uad 9\.9\.9, but .* processes of their own"):
        require_same_package(str(tmp_path))
