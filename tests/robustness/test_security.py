"""Nothing runs code from a file, and nothing that could name a patient is passed on."""

import ast
import logging
from pathlib import Path

import pytest

import dino_uad
from scans import volume, write_dicom
from workflows import BUNDLES, overrides, run

SOURCES = sorted(Path(dino_uad.__file__).parent.rglob("*.py"))
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "marshal", "shelve", "dill", "joblib"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_files_are_loaded_without_running_code(path):
    tree = ast.parse(path.read_text())
    for call, name in calls(tree):
        assert name not in RUNS_CODE, f"{path.name}:{call.lineno}"
        if name == "torch.load":
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert options.get("weights_only") == "True", f"{path.name}:{call.lineno}"
        if name in ("np.load", "numpy.load"):
            assert "allow_pickle" not in ast.unparse(call), f"{path.name}:{call.lineno}"
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not MODULES & {name.split(".")[0] for name in names}, f"{path.name}:{node.lineno}"


def test_no_shell():
    for path in SOURCES:
        for call, name in calls(ast.parse(path.read_text())):
            shell = [keyword for keyword in call.keywords if keyword.arg == "shell"]
            assert name != "os.system" and not shell, f"{path.name}:{call.lineno}"


def test_configs_call_no_shell_and_no_network():
    for path in BUNDLES.glob("*/configs/*"):
        text = path.read_text()
        assert not any(word in text for word in ("os.system", "subprocess", "urllib", "requests", "0.0.0.0")), path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    run("anomaly_dino", folder)
    return folder


def test_dicom_tags_reach_neither_logs_nor_results(fitted, tmp_path, caplog, capfd):
    write_dicom(tmp_path / "scan", volume((32, 32, 3)))  # its patient is called Doe^Jane
    with caplog.at_level(logging.DEBUG):
        run("anomaly_dino", fitted, "inference", dataset_dir=str(tmp_path), output_dir=str(tmp_path / "out"))
    out, err = capfd.readouterr()
    # A DICOM Segmentation tells its patient, as the standard asks for; nothing else does.
    results = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert {"scan_anomaly.nii.gz", "scan_label.nii.gz", "scores.csv"} <= {path.name for path in results}
    assert not any("Doe" in text or "Jane" in text for text in (caplog.text, out, err))
    assert not any(b"Jane" in path.read_bytes() for path in results)


def test_anonymous_names_keep_file_names_out(fitted, tmp_path, caplog, capfd):
    overrides("anomaly_dino", tmp_path)
    folder = tmp_path / "data" / "test"
    for path in sorted(folder.rglob("*.png")):
        path.rename(path.with_name(path.name.replace(path.stem, f"{path.stem[0]}Doe_Jane{path.stem[1:]}")))
    shared = {"anonymous_names": True, "ckpt_dir": str(fitted / "models"), "dataset_dir": str(tmp_path / "data")}
    run("anomaly_dino", tmp_path, "inference", **shared)
    run("anomaly_dino", tmp_path, "evaluate", **shared)
    out, err = capfd.readouterr()
    assert not any("Doe_Jane" in text for text in (caplog.text, out, err))
    written = [path for kind in ("inference", "evaluate") for path in (tmp_path / kind).rglob("*") if path.is_file()]
    assert len(written) > 8
    assert not any("Doe_Jane" in path.name or b"Doe_Jane" in path.read_bytes() for path in written)
