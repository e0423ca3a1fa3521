"""Starting a student close to its teacher: the teacher's first blocks, and heads by ridge regression.

Taking layers over is how DistilBERT was started (Sanh et al. 2019, section 2). The regression gives the linear heads
that are best before any training, so that no step is spent on finding them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dino_uad import parallel
from dino_uad.distill.data import DistillationDataset
from dino_uad.networks.backbone import random_state
from dino_uad.networks.vit import VisionTransformer

RIDGE = 0.1  # of the mean square of a feature; less fits no better and starts with unstably large weights


def start_state(student: VisionTransformer, teacher: VisionTransformer, seed: int) -> dict[str, Tensor]:
    """Seeded random weights, with every tensor of the teacher that has the same name and shape taken over."""
    state = random_state(student, seed)
    given = teacher.state_dict()
    taken = {key: given[key].detach().clone() for key in state if key in given and given[key].shape == state[key].shape}
    return {**state, **taken}


class RidgeRegression:
    """Streaming linear regression ``y = W x + b`` from sums over rows, in float64."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.gram = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self.cross = torch.zeros(inputs + 1, outputs, dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows ``x [N,inputs]`` and ``y [N,outputs]``."""
        x = torch.cat((x, x.new_ones(len(x), 1)), dim=1)
        self.gram += (x.T @ x).double().cpu()
        self.cross += (x.T @ y).double().cpu()

    def solve(self, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
        """Weight ``[outputs,inputs]`` and bias ``[outputs]``, float32, over all ranks' rows; the bias is free."""
        parallel.all_reduce_sum(self.gram, self.cross)
        penalty = torch.full((len(self.gram),), ridge * float(self.gram.diagonal()[:-1].mean()), dtype=torch.float64)
        penalty[-1] = 0
        solution = torch.linalg.solve(self.gram + penalty.diag(), self.cross).float()
        return solution[:-1].T.contiguous(), solution[-1]


@torch.no_grad()
def fit_heads(
    student: VisionTransformer,
    data: DistillationDataset,
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    batch_size: int = 8,
    slices: int = 96,
) -> None:
    """Set the student's two heads to the ridge regression on evenly spaced slices of the data.

    Args:
        student: model with heads, changed in place.
        data: images and targets.
        normalize: from images in [0, 1] to the student's input.
        device: where the student is.
        batch_size: slices per call.
        slices: at most so many are used; the solution needs thousands of patches, not all of them.
    """
    prefix, dim = student.config.num_prefix_tokens, student.config.embed_dim
    heads = {"patch": student.patch_head, "cls": student.cls_head}
    fits = {name: RidgeRegression(dim, student.config.output_dim) for name in heads}
    chosen = torch.linspace(0, len(data) - 1, min(slices, len(data))).round().long().unique().tolist()
    chosen = chosen[parallel.rank() :: parallel.world_size()]
    for start in range(0, len(chosen), batch_size):
        image, embedding, cls = (part.to(device) for part in data.batch(chosen[start : start + batch_size]))
        tokens, rope = student.embed(normalize(image))
        for block in student.blocks:
            tokens = block(tokens, rope)
        tokens = student.norm(tokens)
        fits["patch"].add(tokens[:, prefix:].flatten(0, 1), embedding.flatten(2).transpose(1, 2).flatten(0, 1))
        fits["cls"].add(tokens[:, 0], cls)
    for name, head in heads.items():
        weight, bias = fits[name].solve()
        head.weight.copy_(weight)
        head.bias.copy_(bias)
