"""The pretended GPU refuses what CUDA refuses, allows what it allows, and counts."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from devices.absent_gpu import absent_gpu
from devices.rules import Refused
from dino_uad.metrics.bootstrap import percentile_intervals

BYTES = torch.ones(8, 8, dtype=torch.int8)
MISTAKES = {
    "operands on both sides": lambda a: a + torch.ones(3),
    "rows of the other side": lambda a: torch.cat([a, torch.ones(3)]),
    "a product": lambda a: a[None] @ torch.ones(3, 1),
    "in place": lambda a: torch.ones(3).add_(a),
    "index of the GPU into the host": lambda a: torch.ones(3)[a.long()],
    "masked assignment": lambda a: a.__setitem__(a > 0, torch.ones(3)),
    "numpy": lambda a: a.numpy(),
    "a host's generator": lambda a: a.normal_(generator=torch.Generator()),
    "a host's generator for new numbers": lambda a: torch.rand(3, device=a.device, generator=torch.Generator()),
    "a GPU's generator on the host": lambda a: torch.rand(3, generator=torch.Generator("cuda")),
    "module left on the host": lambda a: torch.nn.Linear(3, 3)(a),
    "a subclass forgets nothing": lambda a: a.as_subclass(torch.Tensor) + torch.ones(3),
    "a product of whole numbers": lambda a: a.int()[None] @ a.int()[:, None],
    "no kernel": lambda a: torch.histogram(a, 3),
    "arithmetic of 16 bits without sign": lambda a: a.to(torch.uint16) + 1,
    "8-bit product of few rows": lambda a: torch._int_mm(
        a.char().expand(16, 3)[:, :1].expand(16, 8), BYTES.to(a.device)
    ),
    "8-bit product of odd width": lambda a: torch._int_mm(a.char().expand(17, 3), BYTES[:3].to(a.device)),
    "quantiles beside what 0 / 0 gives": lambda a: ((a - 1) / (a - 1)).nanquantile(a.new_tensor([0.1, 0.9])),
    "pinned there": lambda a: a.pin_memory(),
    "TF32": lambda a: F.conv2d(a.expand(1, 1, 3, 3) / 3, a.expand(1, 1, 3, 3)),
}
ALLOWED = {
    "a number": lambda a: a + torch.tensor(1.0),
    "brought over": lambda a: a + torch.ones(3).to(a),
    "made there": lambda a: a + torch.ones(3, device=a.device) + torch.zeros_like(a) + a.new_ones(3),
    "index of the host": lambda a: a[torch.tensor([0, 1])],
    "slice assignment": lambda a: a.__setitem__(slice(0, 2), torch.ones(2)),
    "copied": lambda a: a.copy_(torch.ones(3)),
    "its generator": lambda a: a.normal_(generator=torch.Generator(a.device)),
    "brought back": lambda a: a.cpu().numpy(),
    "module moved": lambda a: torch.nn.Linear(3, 3).to(a.device)(a),
    "8-bit product": lambda a: torch._int_mm(a.char()[:1].expand(17, 8), BYTES.to(a.device)),
    "16 bits without sign, converted": lambda a: a.to(torch.uint16).float() + 1,
    "TF32 of numbers that it holds": lambda a: F.conv2d(a.expand(1, 1, 3, 3), a.expand(1, 1, 3, 3)),
    "quantiles beside a NaN": lambda a: torch.where(a > 1, a, torch.nan).nanquantile(a.new_tensor([0.1, 0.9])),
    "views": lambda a: a[None].T.contiguous().flatten().data + a,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused(mistake):
    with absent_gpu(), pytest.raises(Refused):
        MISTAKES[mistake](torch.ones(3).to("cuda"))


@pytest.mark.parametrize("name", ALLOWED)
def test_what_cuda_allows_is_allowed(name):
    with absent_gpu():
        a = torch.ones(3).to("cuda")
        ALLOWED[name](a)
        assert a.device == torch.device("cuda:0") and a.is_cuda and not torch.ones(3).is_cuda


@pytest.mark.parametrize(
    "unordered",
    [
        lambda a: a.cumsum(0),
        lambda a: torch.bincount(a.long(), a),
        lambda a: torch.bincount(a.long(), weights=a),
        lambda a: torch.kthvalue(a, 1),
        lambda a: a.median(dim=0),
        lambda a: a.scatter_reduce(0, a.long(), a, "prod"),
        lambda a: F.adaptive_avg_pool2d(a.requires_grad_()[None, None], 1),
        lambda a: F.interpolate(a.requires_grad_()[None, None], 6, mode="linear"),
    ],
)
def test_deterministic_algorithms_refuse_what_has_no_order(unordered):
    torch.use_deterministic_algorithms(True)
    try:
        with absent_gpu():
            a = torch.ones(3).to("cuda")
            a.long().cumsum(0), a.median(), F.adaptive_avg_pool2d(a[None, None], 1)
            with pytest.raises(Refused, match="deterministic"):
                unordered(a)
    finally:
        torch.use_deterministic_algorithms(False)


def test_crossings_and_waits_are_counted():
    with absent_gpu() as gpu:
        a = torch.ones(3).to("cuda")
        torch.tensor([1.0], device="cuda"), torch.zeros(3, device="cuda"), a.to("cuda")
        a.cpu(), a.sum().item(), bool((a > 0).all())
        a[:2] = torch.zeros(2)
    assert (gpu.count("to the GPU"), gpu.count("to the host"), gpu.count("wait")) == (3, 1, 2)


@pytest.mark.parametrize(
    "mistake", [lambda a: a.cpu(), lambda a: a.short(), lambda a: a.expand(2, 3).T, lambda a: a.to(torch.uint16)]
)
def test_nccl_refuses(mistake, monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor)
    with absent_gpu(nccl=True):
        a = torch.ones(3).to("cuda")
        dist.all_reduce(a)
        with pytest.raises(Refused):
            dist.all_reduce(mistake(a))


def test_samples_without_an_anomaly_are_left_out_of_intervals_on_a_gpu():
    """Of two patients one has an anomaly; every third sample or so holds the other alone, and its mean is 0 / 0."""
    with absent_gpu():
        found = percentile_intervals(lambda times: {"mean": 0.25 * times[:, 0] / times[:, 0]}, 2, 100, 0, 0.95, "cuda")
    assert found == {"mean_low": 0.25, "mean_high": 0.25}
