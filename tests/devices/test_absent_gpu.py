"""The pretended GPU refuses what CUDA refuses, allows what it allows, and counts."""

import pytest
import torch

from devices.absent_gpu import absent_gpu
from devices.rules import Refused

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
    "TF32": lambda a: torch.nn.functional.conv2d(a.expand(1, 1, 3, 3), a.expand(1, 1, 3, 3)),
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
    "unordered", [lambda a: a.cumsum(0), lambda a: torch.bincount(a.long(), a), lambda a: torch.kthvalue(a, 1)]
)
def test_deterministic_algorithms_refuse_what_has_no_order(unordered):
    torch.use_deterministic_algorithms(True)
    try:
        with absent_gpu():
            a = torch.ones(3).to("cuda")
            a.long().cumsum(0)
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
