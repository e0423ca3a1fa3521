"""k-means++ on the pretended GPU: every draw depends on the one before, and the host waits for none."""

import pytest
import torch

from devices.absent_gpu import absent_gpu
from dino_uad.heads.plus_plus import plus_plus


@pytest.mark.parametrize("masked", [False, True])
def test_draws_stay_on_the_gpu_and_are_those_of_the_host(masked):
    generator = torch.Generator().manual_seed(0)
    rows, uniform = torch.randn(3, 40, 8, generator=generator), torch.rand(12, generator=generator)
    mask = torch.rand(3, 40, generator=generator) < 0.7 if masked else None
    expected = plus_plus(rows, uniform, mask)
    with absent_gpu() as gpu:
        torch.use_deterministic_algorithms(True)
        try:
            found = plus_plus(rows.to("cuda"), uniform, mask.to("cuda") if masked else None)
        finally:
            torch.use_deterministic_algorithms(False)
        assert found.is_cuda and gpu.count("wait") == gpu.count("to the host") == 0, gpu.crossings
        assert torch.equal(found.cpu(), expected)
