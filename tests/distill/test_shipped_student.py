"""The student in the package: the promised file, usable without a network, close to its teacher on generated heads."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch.nn.functional import cosine_similarity

from dino_uad.backbones.backbone import DinoBackbone
from dino_uad.backbones.weights import locate, store
from dino_uad.backbones.weights.registry import SOURCES
from dino_uad.demo.phantom import acquire, make_anatomy
from workflows import BUNDLES

NAME = "dino_uad_tiny14"


@pytest.fixture
def student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DinoBackbone:
    """The packaged weights, with an empty cache folder and downloads forbidden."""
    monkeypatch.setenv(store.ENVIRONMENT_VARIABLE, str(tmp_path))
    monkeypatch.setattr(store, "download", lambda *_: pytest.fail("the packaged student was downloaded"))
    return DinoBackbone(NAME)


def test_file_is_small_and_has_the_registered_hash() -> None:
    path = Path(store.__file__).parent / SOURCES[NAME].packaged
    assert path.stat().st_size <= 12e6
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SOURCES[NAME].sha256
    assert locate(NAME) is not None


def test_it_embeds_any_size_without_a_download(student: DinoBackbone) -> None:
    assert student.embed_dim == 384
    assert len(student.vit.blocks) == 9
    for height, width in ((56, 70), (112, 112)):
        embeddings, cls = student(torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0)))
        assert embeddings.shape == (2, 384, height // 14, width // 14)
        assert cls.shape == (2, 384)
        assert embeddings.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("block", [5, 8])
def test_what_bundles_read_of_it_is_what_they_read_of_its_teacher(block: int, monkeypatch) -> None:
    monkeypatch.undo()
    subject = make_anatomy(np.random.default_rng(10_000))
    volume = acquire(subject.signal, subject.spacing, np.random.default_rng(10_001)).astype(np.float32)
    image = torch.from_numpy(volume[:, ::-1, 12].T / np.percentile(volume, 99.5)).clamp(0, 1)[None, None]
    image = torch.nn.functional.interpolate(image, (448, 448), mode="bilinear")
    found, given = (DinoBackbone(arch, [block], final_norm=False)(image)[0] for arch in (NAME, "dinov2_vits14"))
    assert float(cosine_similarity(found, given, dim=1).mean()) > 0.995


@pytest.mark.parametrize("method", ["dpmm", "spatial_ar", "dino_ad", "anomaly_dino"])
def test_every_bundle_runs_with_it_by_its_name_alone(method: str) -> None:
    for name in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config(BUNDLES / method / "configs" / f"{name}.json")
        parser["network_def#backbone#arch"] = NAME
        backbone = parser.get_parsed_content("network_def#backbone")
        assert (backbone.layers, backbone.final_norm, backbone.embed_dim) == ((5, 8), False, 768)
