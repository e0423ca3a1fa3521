"""Start a real MONAI Label server with our bundles, talk to it as 3D Slicer does, and stop it. Standard library only.

    python tests/monailabel/drive.py APP STUDIES [MODEL ...]

prints what the server offers and one line for every inference: the model, the image, seconds, labelled voxels. ``APP``
is a copy of MONAI Label's sample app ``monaibundle`` with the bundles in ``APP/model``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

BUNDLES = ("dpmm", "spatial_ar", "dino_ad", "anomaly_dino")


class ServerError(RuntimeError):
    """The server did not start, stopped, or answered with an error; the message holds what it said."""


@dataclass(frozen=True)
class Answer:
    """What an inference returns."""

    params: dict[str, Any]
    file_name: str
    content: bytes
    seconds: float

    def save(self, folder: Path) -> Path:
        """Write the map into ``folder`` with the suffix that the server chose."""
        suffix = ".nii.gz" if self.file_name.endswith(".nii.gz") else Path(self.file_name).suffix
        path = folder / f"{uuid4().hex[:8]}{suffix}"
        path.write_bytes(self.content)
        return path


class Server:
    """A MONAI Label server on a free port of the loopback interface, as a context manager.

    Args:
        app: copy of the sample app ``monaibundle``; its ``model`` folder holds the bundles.
        studies: folder of images.
        models: bundle folders to serve.
        log: file for the server's output.
        conf: further ``--conf`` settings.
        environment: further environment variables.
        patience: seconds until the server must answer, or a background task be done.
    """

    def __init__(
        self,
        app: Path,
        studies: Path,
        models: Sequence[str],
        log: Path,
        conf: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        patience: float = 300,
    ) -> None:
        self.log = Path(log)
        self.patience = patience
        self.port = free_port()
        self.command = [sys.executable, "-m", "monailabel.main", "start_server", "--host", "127.0.0.1"]
        self.command += ["--app", str(app), "--studies", str(studies), "--port", str(self.port)]
        # zoo_source local: without it the server asks for the list of the model zoo, and ends when there is no answer.
        settings = {"models": ",".join(models), "zoo_source": "local", "sam2": "false", **(conf or {})}
        for key, value in settings.items():
            self.command += ["--conf", key, value]
        self.environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "MONAI_LABEL_TRACKING_ENABLED": "false",
            "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
            **(environment or {}),
        }
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Server:
        with open(self.log, "wb") as log:
            # A session of its own: the training that the server starts ends with it.
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True
            )
        try:
            self._await_start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and everything that it started."""
        if self.process is None or self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def info(self) -> dict[str, Any]:
        """Models, trainers, scoring methods and their options."""
        return self._json("GET", "/info/")

    def infer(self, model: str, image: str, **params: Any) -> Answer:
        """Label one image of the data store (or a path of the server's machine); ``params`` are per-request options."""
        start = time.perf_counter()
        body, kind = multipart({"params": json.dumps(params)})
        kind, content = self._call("POST", f"/infer/{model}?{urllib.parse.urlencode({'image': image})}", body, kind)
        parts = split_multipart(kind, content)
        name, data = parts["image"]
        return Answer(json.loads(parts["params"][1]), name, data, time.perf_counter() - start)

    def batch_infer(self, model: str, **params: Any) -> dict[str, Any]:
        """Label every image of the data store and keep the results there."""
        request = {"save_label": True, "label_tag": "original", "max_workers": 1, "multi_gpu": False, **params}
        return self._json("POST", f"/batch/infer/{model}?run_sync=true", request)

    def save_label(self, image: str, label: Path) -> None:
        """Give an image its final label, as *Submit label* does."""
        body, kind = multipart({"params": "{}"}, {"label": (label.name, label.read_bytes())})
        self._call("PUT", f"/datastore/label?{urllib.parse.urlencode({'image': image, 'tag': 'final'})}", body, kind)

    def datastore(self) -> dict[str, Any]:
        """Images with their labels."""
        return self._json("GET", "/datastore/?output=all")["objects"]

    def train(self, model: str, **params: Any) -> list[str]:
        """Fit on the images with a final label; returns the last lines of the training's log."""
        return self._background("train", f"/train/{model}", params)

    def score(self, method: str, **params: Any) -> list[str]:
        """Rank the images for active learning; returns the last lines of the log."""
        return self._background("scoring", f"/scoring/{method}", params)

    def next_sample(self, strategy: str, **params: Any) -> dict[str, Any]:
        """The image that a strategy of active learning offers next."""
        return self._json("POST", f"/activelearning/{strategy}", params)

    def said(self, text: str, patience: float = 20) -> bool:
        """Whether the server's log holds a text; an error is written there just after it was answered with 500."""
        deadline = time.monotonic() + patience
        while text not in self.log.read_text(errors="replace") and time.monotonic() < deadline:
            time.sleep(0.2)
        return text in self.log.read_text(errors="replace")

    def _background(self, task: str, path: str, params: Mapping[str, Any]) -> list[str]:
        self._json("POST", path, params)
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            time.sleep(0.5)
            state = self._json("GET", f"/{task}/")
            if state["status"] == "DONE":
                return list(state["details"])
            if state["status"] not in ("SUBMITTED", "RUNNING"):
                raise ServerError(f"{path} ended with {state['status']}:\n" + "\n".join(state.get("details", [])))
        raise ServerError(f"{path} not done after {self.patience} s")

    def _await_start(self) -> None:
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.info()
                return
            except OSError:
                time.sleep(0.5)
        raise ServerError(
            f"the server did not start; its log ends with\n{self.log.read_text(errors='replace')[-3000:]}"
        )

    def _json(self, method: str, path: str, payload: Mapping[str, Any] | None = None) -> Any:
        body = None if payload is None else json.dumps(payload).encode()
        return json.loads(self._call(method, path, body, "application/json")[1])

    def _call(self, method: str, path: str, body: bytes | None, kind: str) -> tuple[str, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": kind})
        request.method = method
        try:
            with urllib.request.urlopen(request, timeout=self.patience) as response:
                return response.headers.get("Content-Type", ""), response.read()
        except urllib.error.HTTPError as error:
            raise ServerError(
                f"{method} {path}: {error.code} {error.read().decode(errors='replace')[:2000]}"
            ) from error


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def multipart(fields: Mapping[str, str], files: Mapping[str, tuple[str, bytes]] | None = None) -> tuple[bytes, str]:
    """Encode form fields and files (name and content); returns the body and its content type."""
    boundary = uuid4().hex
    parts = [(f'form-data; name="{key}"', value.encode()) for key, value in fields.items()]
    parts += [(f'form-data; name="{key}"; filename="{name}"', data) for key, (name, data) in (files or {}).items()]
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def split_multipart(kind: str, body: bytes) -> dict[str, tuple[str, bytes]]:
    """Decode a multipart answer: field name -> (file name or "", content)."""
    if "boundary=" not in kind:
        raise ServerError(f"no label map in the answer ({kind}): {body[:500]!r}")
    boundary = b"--" + kind.split("boundary=")[1].strip('"').encode()
    result = {}
    for part in body.split(boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(
            item.strip().split("=", 1) for item in head.decode().replace("\r\n", ";").split(";") if "=" in item
        )
        result[fields["name"].strip('"')] = (fields.get("filename", '""').strip('"'), content)
    return result


def describe(path: Path) -> str:
    """Shape, orientation and number of labelled voxels of a map."""
    import nibabel
    import numpy as np
    from PIL import Image

    if path.name.endswith(".nii.gz"):
        volume = nibabel.load(path)
        array, axes = np.asanyarray(volume.dataobj), "".join(nibabel.aff2axcodes(volume.affine))
    elif path.suffix == ".nrrd":
        import nrrd

        (array, _), axes = nrrd.read(str(path)), "nrrd"
    else:
        array, axes = np.asarray(Image.open(path)), "picture"
    return f"{'x'.join(map(str, array.shape))} {array.dtype} {axes}, {int((array > 0).sum())} labelled"


def main(arguments: Sequence[str]) -> None:
    """Serve the models, and label every image of the studies with each."""
    app, studies, *models = arguments
    models = models or list(BUNDLES)
    out = Path("runs/monailabel_maps")
    out.mkdir(parents=True, exist_ok=True)
    with Server(Path(app), Path(studies), models, out / "server.log", patience=900) as server:
        info = server.info()
        for name in models:
            model = info["models"][name]
            print(f"model {name}: {model['type']}, labels {model['labels']}, version {model['version']}")
            print(f"  {model['description']}")
            options = {
                key: model["config"][key] for key in ("false_positive_rate", "grow", "min_size", "smoothing", "output")
            }
            print(f"  options {json.dumps(options)}; trainer: {name in info['trainers']}")
        images = sorted(server.datastore())
        for name in models:
            for image in images:
                answer = server.infer(name, image)
                seconds = answer.params["latencies"]["total"]
                print(f"{name:13s} {image:36s} {seconds:7.2f} s  {describe(answer.save(out))}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
