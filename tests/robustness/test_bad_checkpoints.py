"""Model files, backbone weights, output folders: each wrong one is named, with what to do; nothing is left behind."""

import errno
import os
import re
import resource
import shutil

import pytest
import torch
from safetensors.torch import save_file

from dino_uad.backbones.backbone import DinoBackbone
from dino_uad.errors import explain
from dino_uad.files import atomic_path, require_writable, save_torch
from workflows import METHODS, run


class Payload:
    """Pickles to a call of os.mkdir."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    run("dpmm", folder)
    return folder


@pytest.fixture
def copy(fitted, tmp_path):
    """A folder with the fitted model and the pictures, to be damaged."""
    for name in ("data", "models"):
        shutil.copytree(fitted / name, tmp_path / name)
    return tmp_path


def changed(**values):
    def change(path):
        state = torch.load(path, weights_only=True)
        for key, value in values.items():
            state[key.replace("__", ".")] = value
        torch.save({key: value for key, value in state.items() if value is not None}, path)

    return change


def one_bit(tensor):
    """Change the lowest bit of the first element of a tensor in the file, as a bad disk or cable does."""

    def change(path):
        content = bytearray(path.read_bytes())
        value = torch.load(path, weights_only=True)[tensor].numpy().tobytes()
        content[content.index(value)] ^= 1
        path.write_bytes(content)

    return change


def cut(path):
    path.write_bytes(path.read_bytes()[:2000])


DAMAGED = (
    r"damaged, or it holds more than tensors and is not loaded .*train\.json writes: copy it again, or train again"
)
FOREIGN = r"does not fit this network: .*{}.*repeat the overrides that train was run with, or train again"
MODELS = {
    "absent": (lambda path: path.unlink(), r"no such model file; expected the model\.pt that train\.json writes"),
    "truncated": (cut, DAMAGED),
    "one bit of the thresholds": (one_bit("thresholds"), DAMAGED),
    "one bit of the bank": (one_bit("head.resp_mean"), DAMAGED),
    "text": (lambda path: path.write_text("no model"), DAMAGED),
    "empty": (lambda path: path.write_bytes(b""), DAMAGED),
    "pickle with code": (lambda path: torch.save(Payload(path.parent / "owned"), path), DAMAGED),
    "a list": (lambda path: torch.save([torch.zeros(2)], path), r"found list, not names mapped to tensors; expected"),
    "missing key": (changed(head__resp_mean=None), FOREIGN.format(r"Missing key\(s\).*head\.resp_mean")),
    "extra key": (changed(head__other=torch.ones(2)), FOREIGN.format(r"Unexpected key\(s\).*head\.other")),
    "wrong size": (changed(head__resp_mean=torch.ones(2)), FOREIGN.format(r"size mismatch for head\.resp_mean")),
    "NaN": (changed(head__resp_mean=torch.full((6,), torch.nan)), FOREIGN.format(r"head\.resp_mean: NaN found")),
    "no fingerprint": (changed(fingerprint=None), FOREIGN.format("no fingerprint found")),
    "broken fingerprint": (changed(fingerprint=torch.full((1024,), 200, dtype=torch.uint8)), r"fingerprint"),
    "not calibrated": (
        changed(normal_scans__finding_thresholds=torch.full((2,), torch.nan)),
        r"model\.pt: no calibrated threshold found",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_bad_model(case, copy):
    damage, expected = MODELS[case]
    damage(copy / "models" / "model.pt")
    with pytest.raises(Exception) as caught:
        run("dpmm", copy, "inference")
    message = explain(caught.value)
    assert "model.pt" in message and re.search(f"(?s){expected}", message), message
    assert not list(copy.glob("inference/*_label*"))
    assert not (copy / "models" / "owned").exists(), "the pickle was run"


SETTINGS = {
    "image_size": ([70, 70], r"image_size: the checkpoint was fitted with \[56, 56\], this network has \[70, 70\]"),
    "network_def#backbone#arch": ("dinov2_vits14", r"arch: the checkpoint was fitted with 'dino_uad_tiny14'"),
    "network_def#backbone#layers": ([0], r"layers: the checkpoint was fitted with \[5, 8\], this network has \[0\]"),
    "network_def#head#n_components": (9, r"head\.log_weights.*\[6\].*\[9\]"),
    "axcodes": ("IPL", r"preprocessing: .*'PLS'.*'IPL'"),
}


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize("kind", ["inference", "evaluate"])
def test_model_of_other_settings(key, kind, copy):
    value, expected = SETTINGS[key]
    with pytest.raises(Exception) as caught:
        run("dpmm", copy, kind, **{key: value})
    assert re.search(f"(?s){FOREIGN.format(expected)}", explain(caught.value)), explain(caught.value)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "dpmm"])
def test_model_of_another_method(method, copy):
    with pytest.raises(Exception) as caught:
        run(method, copy, "inference")
    assert "method: the checkpoint was fitted with 'DPMMHead'" in explain(caught.value)


def weights(path, **changes):
    state = DinoBackbone("dino_uad_tiny14", weights="random").vit.state_dict() | changes
    state = {key: value.contiguous() for key, value in state.items() if value is not None}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


WEIGHTS = {
    "absent": (lambda d: d / "a.pth", r"no backbone weights at .*a\.pth; give the path of a"),
    "unknown name": (
        lambda d: "dinov2_vitx",
        r"unknown weights 'dinov2_vitx': neither a file nor one of",
    ),
    "truncated pth": (lambda d: cut(weights(d / "a.pth")) or d / "a.pth", r"a\.pth is damaged or no checkpoint"),
    "one bit of pth": (
        lambda d: one_bit("norm.weight")(weights(d / "a.pth", **{"norm.weight": torch.rand(384)})) or d / "a.pth",
        r"a\.pth is damaged or no checkpoint .*their checksum is another",
    ),
    "truncated safetensors": (
        lambda d: cut(weights(d / "a.safetensors")) or d / "a.safetensors",
        r"a\.safetensors is damaged .*delete it and get it again",
    ),
    "pickle with code": (
        lambda d: torch.save(Payload(d / "owned"), d / "a.pth") or d / "a.pth",
        r"a\.pth holds more than tensors and is not loaded",
    ),
    "NaN": (
        lambda d: weights(d / "a.pth", cls_token=torch.full((1, 1, 384), torch.nan)),
        r"NaN.*get it again",
    ),
    "missing key": (
        lambda d: weights(d / "a.pth", mask_token=None),
        r"do not fit .*: mask_token is missing",
    ),
    "extra key": (lambda d: weights(d / "a.pth", x=torch.ones(1)), r"x is not part of dino_uad_tiny14"),
    "wrong size": (lambda d: weights(d / "a.pth", cls_token=torch.ones(1, 1, 5)), r"\[1, 1, 5\].*needs \[1, 1, 384\]"),
    "wrong hash": (
        lambda d: weights(d / "a-01234567.pth"),
        r"its name promises 01234567: get the file again",
    ),
    "another model": (
        lambda d: torch.save({"conv1.weight": torch.ones(1)}, d / "a.pth") or d / "a.pth",
        r"no DINOv2 or DINOv3 checkpoint: its keys start with conv1\.weight, expected",
    ),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_bad_weights(case, tmp_path):
    make, expected = WEIGHTS[case]
    with pytest.raises((ValueError, FileNotFoundError), match=expected):
        DinoBackbone("dino_uad_tiny14", weights=str(make(tmp_path)))
    assert not (tmp_path / "owned").exists(), "the pickle was run"


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("train", "ckpt_dir"),
        ("train", "model_file"),
        ("train", "output_dir"),
        ("train", "cache_dir"),
        ("evaluate", "output_dir"),
        ("inference", "output_dir"),
    ],
)
def test_output_that_cannot_be_written(kind, key, copy):
    (copy / "file").write_text("in the way")
    place = copy / "file" / "folder"
    with pytest.raises(Exception) as caught:
        run("dpmm", copy, kind, **{key: str(place / "model.pt" if key == "model_file" else place)})
    message = explain(caught.value)
    assert "cannot" in message and str(place) in message and "another folder" in message, message


@pytest.fixture
def full_disk():
    """No file may grow beyond 1000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_the_old_file_and_no_new_one(full_disk, tmp_path):
    target = tmp_path / "model.pt"
    target.write_bytes(b"old")
    with pytest.raises(OSError, match=r"cannot write .*model\.pt .*free space or choose another folder"):
        save_torch({"a": torch.zeros(10_000)}, target)
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["model.pt"]
    with pytest.raises(OSError, match=r"output folder .* cannot be written"):
        require_writable(tmp_path)


def test_full_disk_is_reported_with_its_reason(tmp_path):
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert explain(caught.value).endswith("a (No space left on device); free space or choose another folder")
