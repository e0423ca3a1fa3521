"""Runs the bundles' own configs on tiny pictures: in this process, or in cheap processes that may be killed."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from monai.bundle import ConfigWorkflow

from helpers import labelled_pictures

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
FILES = {"train": ["train"], "evaluate": ["train", "evaluate"], "inference": ["inference"]}
FILES["distributed"] = ["train", "multi_gpu_train"]
FILES["distributed evaluate"] = ["train", "evaluate", "multi_gpu_evaluate"]

TINY = {
    "image_size": [56, 56],
    "network_def#backbone#arch": "dino_uad_tiny14",
    "network_def#backbone#weights": "random",
}
METHODS: dict[str, dict[str, Any]] = {
    "dpmm": {"network_def#head#n_components": 6},
    "spatial_ar": {"network_def#head#hidden": 8},
    "dino_ad": {"network_def#backbone#layers": [0]},
    "anomaly_dino": {"network_def#head#coreset": 0.5},
}
FIT = {
    "dpmm": {"max_epochs": 4, "train#dataloader#batch_size": 2},
    "spatial_ar": {"max_epochs": 4, "train#dataloader#batch_size": 2},
    "dino_ad": {"train#dataloader#batch_size": 2},
    "anomaly_dino": {"train#dataloader#batch_size": 2},
}

GRACE = 120  # twice what a rank waits for the others in the test in which one dies
SECONDS = 900  # far more than a fit takes on a busy machine, less than torch's own time-out of half an hour

# NCCL wants a GPU for every rank.
RANKS_ON: dict[str, Any] = {} if torch.cuda.device_count() > 2 else {"device": "cpu"}

# Children of a server that has imported the slow parts start in a fraction of a second.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["monai.bundle", "monai.handlers", "torch.utils.tensorboard", "torch._dynamo", "dino_uad.handlers.fit_checkpoint"]
)


def overrides(method: str, folder: Path, kind: str = "train", **more: Any) -> dict[str, Any]:
    """Overrides of one small run; its pictures are in ``folder/data``, all it writes goes below ``folder``."""
    if not (folder / "data").exists():
        labelled_pictures(folder / "data")
    places = {"dataset_dir": "data", "ckpt_dir": "models", "output_dir": kind}
    if kind != "inference":
        places["cache_dir"] = "cache"
    places = {key: str(folder / name) for key, name in places.items()}
    fit = {} if kind == "inference" else FIT[method]
    return {**TINY, **METHODS[method], **places, **fit, "bundle_root": str(BUNDLES / method), "debug": True, **more}


def run(method: str, folder: Path, kind: str = "train", **more: Any) -> None:
    """What ``python -m monai.bundle run`` does, in this process; ``more`` are overrides."""
    config = [str(BUNDLES / method / "configs" / f"{name}.json") for name in FILES[kind]]
    path, threads = list(sys.path), torch.get_num_threads()
    try:
        workflow = ConfigWorkflow(config, logging_file=False, **overrides(method, folder, kind, **more))
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    finally:
        sys.path[:] = path
        torch.set_num_threads(threads)


def command(method: str, folder: Path, kind: str = "train", **more: Any) -> list[str]:
    """The same as a command line; pass ``debug=False`` to see what users see."""
    config = [str(BUNDLES / method / "configs" / f"{name}.json") for name in FILES[kind]]
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config)]
    for key, value in overrides(method, folder, kind, **more).items():
        line += [f"--{key}", value if isinstance(value, str) else repr(value)]
    return line


def model(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "models" / "model.pt", weights_only=True)


def start(function: Callable, *arguments: Any) -> multiprocessing.Process:
    """Run a function in a process of its own, with one thread."""
    return _child(_quietly, function, *arguments)


def typed(
    line: list[str], folder: Path | None = None, output: str = os.devnull, **environment: str
) -> multiprocessing.Process:
    """A command line, ``python -m MODULE …``, as it is typed in ``folder``, in a process that has MONAI already.

    What it prints, on both streams, is appended to the file ``output``.
    """
    return _child(_run_line, line, folder or Path.cwd(), output, environment)


def printed(line: list[str], folder: Path | None = None, **environment: str) -> tuple[int, str]:
    """Exit status of :func:`typed`, and all that it printed."""
    with tempfile.NamedTemporaryFile() as file:
        process = typed(line, folder, file.name, **environment)
        process.join()
        return process.exitcode, Path(file.name).read_text()


def _child(function: Callable, *arguments: Any) -> multiprocessing.Process:
    process = SERVER.Process(target=_as_a_program, args=(function, *arguments))
    process.start()
    return process


def _as_a_program(function: Callable, *arguments: Any) -> None:
    """Loaders' workers are forked, as those of a command; else each run would start a server that imports MONAI."""
    multiprocessing.set_start_method("fork", force=True)
    function(*arguments)


def _run_line(line: list[str], folder: Path, output: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ |= environment
    sys.orig_argv, sys.argv = line, line[2:]
    try:
        runpy.run_module(line[2], run_name="__main__", alter_sys=True)
    except Exception as error:  # multiprocessing would print it, not what a bundle has put in charge of that
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


def _quietly(function: Callable, *arguments: Any) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    function(*arguments)


def two_ranks(function: Callable, *arguments: Any) -> None:
    """``function(rank, *arguments)`` in a group of two processes with one thread each; raises what one raises."""
    with tempfile.TemporaryDirectory() as folder:
        given = (f"file://{folder}/rendezvous", function, *arguments)
        torch.multiprocessing.start_processes(_join_by_file, given, nprocs=2, start_method="forkserver")


def _join_by_file(rank: int, place: str, function: Callable, *arguments: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=2)
    function(rank, *arguments)
    dist.destroy_process_group()


def run_in_group(world: int, function: Callable[[], Any], functions: dict[int, Callable[[], Any]] | None = None):
    """Exit codes of ``world`` ranks that run a function as ``torchrun`` would; ``functions`` are of single ranks.

    A function joins one group only: a rank that starts a second one can reach the first one's server before that has
    closed, and waits there for ever. Ranks left alone by one that failed are killed after :data:`GRACE` seconds.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [start(_join, rank, world, port, (functions or {}).get(rank, function)) for rank in range(world)]
    end = time.monotonic() + SECONDS
    while (running := [process for process in ranks if process.exitcode is None]) and time.monotonic() < end:
        multiprocessing.connection.wait([process.sentinel for process in running], timeout=end - time.monotonic())
        if any(process.exitcode for process in ranks):
            end = min(end, time.monotonic() + GRACE)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    return codes


def _join(rank: int, world: int, port: int, function: Callable[[], Any]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    function()


def run_and_die(method: str, folder: Path, event: str, count: int, more: dict[str, Any]) -> None:
    """A fit that sends itself SIGKILL before or after the ``count``-th file it completes, or in its n-th batch."""
    with killing(event, count):
        run(method, folder, **more)


@contextmanager
def killing(event: str, count: int):
    """Count calls of what ``event`` names; SIGKILL on the ``count``-th."""
    from dino_uad.engines import batch, fit, prepare_embedding

    owner, name = {"batch": (batch, "unpack")}.get(event, (os, "replace"))
    original, seen = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal seen
        seen += 1
        if seen == count and event != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)
    if event == "batch":
        fit.unpack = prepare_embedding.unpack = counted
    yield
