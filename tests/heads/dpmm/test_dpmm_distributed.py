"""Fitting the DPMM on two processes; a module of its own because the processes import it again."""

import torch

from dino_uad.heads.dpmm.head import DPMMHead
from workflows import two_ranks


def _fit_rank(rank: int, batches: list[torch.Tensor], path: str) -> None:
    head = DPMMHead(6, n_components=12)
    for step, batch in enumerate(batches):
        cut = 2 if step else 4  # the second rank has no images in the first batch
        head.fit_batch(batch[:cut] if rank == 0 else batch[cut:])
    torch.save(head.state_dict(), f"{path}{rank}")


def test_two_processes_fit_the_model_of_one(tmp_path):
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(4, 6, 8, 8, generator=generator) for _ in range(4)]
    two_ranks(_fit_rank, batches, str(tmp_path / "rank"))
    head = DPMMHead(6, n_components=12)
    for batch in batches:
        head.fit_batch(batch)
    for rank in range(2):
        state = torch.load(tmp_path / f"rank{rank}", weights_only=True)
        for name, value in head.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5, msg=name)
