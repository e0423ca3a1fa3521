"""How processes meet: which device each takes, and what they leave behind."""

import os
import socket
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from dino_uad import parallel
from workflows import start


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "local_rank", "kind", "expected"),
    [
        (0, "1", None, "cpu"),
        (2, "1", None, "cuda:1"),
        (2, "1", "cuda", "cuda:1"),
        (2, "1", "cuda:0", "cuda:0"),
        (2, "1", "cpu", "cpu"),
        (2, None, None, "cuda:0"),
    ],
)
def test_each_process_takes_the_gpu_of_its_number(monkeypatch, count, local_rank, kind, expected):
    gpus(monkeypatch, count)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert parallel.rank_device(kind) == torch.device(expected)


def test_more_processes_than_gpus_is_an_error_in_words(monkeypatch):
    gpus(monkeypatch, 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(RuntimeError, match="process 2 of this machine found 2 GPUs"):
        parallel.rank_device()


def test_gpus_talk_by_nccl_and_the_rank_owns_its_gpu(monkeypatch):
    calls = {}
    monkeypatch.setattr(parallel.group, "_patience", None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.update(device=device))
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, timeout: calls.update(backend=backend, time=timeout)
    )
    monkeypatch.setattr(parallel.group.idist, "sync", lambda: calls.update(ignite=True))
    parallel.start_process_group(torch.device("cuda", 1), timeout_minutes=3)
    assert calls.pop("time").total_seconds() == parallel.patience() == 180
    assert calls == {"device": torch.device("cuda", 1), "backend": "nccl", "ignite": True}


@pytest.mark.parametrize(
    ("left", "missing", "advice"),
    [
        ({}, "RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT", r"leave out multi_gpu_\*\.json$"),
        ({"WORLD_SIZE": "2"}, "RANK, MASTER_ADDR, MASTER_PORT", "and unset WORLD_SIZE$"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR, MASTER_PORT", "and unset RANK, WORLD_SIZE$"),
    ],
)
def test_a_start_without_torchrun_says_what_to_do(monkeypatch, left, missing, advice):
    for name in parallel.group.TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match=f"^{missing} not found in the environment; .*with torchrun .*{advice}"):
        parallel.start_process_group("cpu")


def test_who_waits_for_others_says_where(monkeypatch, caplog):
    environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = []
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **kwargs: said.append(caplog.text))
    monkeypatch.setattr(parallel.group.idist, "sync", lambda: None)
    with caplog.at_level("INFO"):
        parallel.start_process_group("cpu")
    assert "process 0 of 2 waits at 10.0.0.1:29500 until all have started" in said[0]


def summed(rank: int, port: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with parallel.process_group("cpu") as device:
        assert (device.type, parallel.rank(), dist.get_backend()) == ("cpu", rank, "gloo")
        weight, unused = torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))
        weight.grad = torch.full((2, 3), 1.0 + rank)
        parallel.sum_gradients([weight, unused], scale=0.5)
        assert unused.grad is None
        torch.save(weight.grad, f"{folder}/{rank}.pt")
    assert not dist.is_initialized()


def test_a_group_for_as_long_as_it_is_needed(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [start(summed, rank, port, str(tmp_path)) for rank in range(2)]
    for rank, process in enumerate(ranks):
        process.join(120)
        assert process.exitcode == 0
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True).eq(1.5).all()


@pytest.mark.parametrize(
    ("device", "cores", "ranks", "shared", "expected"),
    [
        ("cpu", 16, None, 64 << 30, 0),
        ("cuda:0", 16, None, 64 << 30, 15),
        ("cuda:0", 64, None, 64 << 30, 16),
        ("cuda:1", 16, "4", 64 << 30, 3),
        ("cuda:0", 4, None, 64 << 30, 3),
        ("cuda", 2, "8", 64 << 30, 0),
        ("cuda:0", 16, None, 64 << 20, 0),  # a container's
        ("cuda:0", 16, "2", 4 << 30, 4),
    ],
)
def test_images_are_loaded_beside_a_gpu(monkeypatch, device, cores, ranks, shared, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(os.path, "isdir", lambda _: True)
    monkeypatch.setattr(parallel.machine.shutil, "disk_usage", lambda _: mock.Mock(free=shared))
    if ranks:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert parallel.loader_workers(torch.device(device)) == parallel.loader_workers(device) == expected


def test_alone_there_is_no_group():
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    with parallel.process_group("cpu") as device:
        parallel.sum_gradients([weight], scale=0.5)
        assert device == torch.device("cpu") and not dist.is_initialized()
    assert weight.grad == 1
