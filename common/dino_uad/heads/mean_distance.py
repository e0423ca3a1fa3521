"""The simplest head there is: cosine distance to the mean normal embedding. A baseline every method has to beat."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad.heads.head import Head
from dino_uad.parallel import all_reduce_sum
from dino_uad.tracing import is_traced


class MeanDistanceHead(Head):
    """Scores a patch by ``1 - cos(z, mean of all normal z / |z|)``, in [0, 2].

    Args:
        embed_dim: number of channels ``C``.
    """

    single_pass = True

    def __init__(self, embed_dim: int) -> None:
        super().__init__(embed_dim)
        self.register_buffer("total", torch.zeros(embed_dim, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def fitted(self) -> bool:
        return bool(self.count > 0)

    def fit_batch(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> dict[str, float]:
        rows = F.normalize(embeddings.float(), dim=1).movedim(1, -1)
        rows = rows.flatten(0, 2) if mask is None else rows[mask[:, 0]]
        total, count = all_reduce_sum(rows.double().sum(dim=0), self.count.new_tensor(len(rows)))
        self.total += total
        self.count += count
        return {}

    def score(self, embeddings: Tensor, cls: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        if not is_traced() and not self.fitted:
            raise RuntimeError("MeanDistanceHead is not fitted: run train first or load models/model.pt")
        mean = F.normalize((self.total / self.count).float(), dim=0)
        return 1 - (F.normalize(embeddings.float(), dim=1) * mean[:, None, None]).sum(dim=1, keepdim=True)
