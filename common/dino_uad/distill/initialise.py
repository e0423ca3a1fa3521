"""Starting a student close to its teacher: the teacher's first blocks, narrower MLPs and heads by ridge regression.

Taking layers over is how DistilBERT was started (Sanh et al. 2019, section 2). The regressions give the linear layers
that are best before any training, so that no step is spent on finding them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dino_uad import parallel
from dino_uad.backbones import VisionTransformer, random_state
from dino_uad.distill.data import DistillationDataset

HEAD_RIDGE = 0.1  # of the mean square of a feature; less fits no better and starts with unstably large weights
MLP_RIDGE = 1e-3  # here the regression approximates a map of the very same inputs
SLICES = 96  # the solutions need thousands of patches, not all of them


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

    def solve(self, ridge: float = HEAD_RIDGE) -> tuple[Tensor, Tensor]:
        """Weight ``[outputs,inputs]`` and bias ``[outputs]``, float32, over all ranks' rows; the bias is free."""
        parallel.all_reduce_sum(self.gram, self.cross)
        penalty = torch.full((len(self.gram),), ridge * float(self.gram.diagonal()[:-1].mean()), dtype=torch.float64)
        penalty[-1] = 0
        solution = torch.linalg.solve(self.gram + penalty.diag(), self.cross).float()
        return solution[:-1].T.contiguous(), solution[-1]


def initialise(
    student: VisionTransformer,
    teacher: VisionTransformer,
    data: DistillationDataset,
    normalize: Callable[[Tensor], Tensor],
    device: torch.device,
    batch_size: int = 8,
) -> None:
    """Fit the student's narrower MLPs, if it has such, and its heads on evenly spaced slices of the data.

    Args:
        student: model with heads that :func:`start_state` has been loaded into, changed in place.
        teacher: model of the same width, the source of the blocks.
        data: images and targets.
        normalize: from images in [0, 1] to the models' input.
        device: where the models are.
        batch_size: slices per call.
    """
    chosen = torch.linspace(0, len(data) - 1, min(SLICES, len(data))).round().long().unique().tolist()
    chosen = chosen[parallel.rank() :: parallel.world_size()]
    images, targets = [], []
    for first in range(0, len(chosen), batch_size):
        image, *target = (part.to(device) for part in data.batch(chosen[first : first + batch_size]))
        images.append(normalize(image))
        targets.append(tuple(target))
    if student.config.embed_dim == teacher.config.embed_dim and student.config.mlp_ratio < teacher.config.mlp_ratio:
        shrink_mlps(student, teacher, images)
    fit_heads(student, images, targets)


@torch.no_grad()
def shrink_mlps(student: VisionTransformer, teacher: VisionTransformer, images: list[Tensor]) -> None:
    """Keep the hidden channels of the teacher's MLPs that give most of their output, and refit the layer behind them.

    Block by block, on what the shrunk blocks before give, as in layer-wise pruning by reconstruction (He et al. 2017).

    Args:
        student: has the teacher's attention already; its MLPs are changed in place.
        teacher: model of the same width.
        images: normalised batches ``[B,3,H,W]``, this rank's share.
    """
    streams = [student.embed(image) for image in images]
    for block, full in zip(student.blocks, teacher.blocks, strict=False):
        streams = [(block.ls1(tokens, block.attn(block.norm1(tokens), rope)), rope) for tokens, rope in streams]
        energy = torch.zeros(full.mlp.fc1.out_features, device=full.mlp.fc1.weight.device)
        for tokens, _ in streams:
            energy += F.gelu(full.mlp.fc1(block.norm2(tokens))).flatten(0, 1).square().sum(dim=0)
        parallel.all_reduce_sum(energy)
        width = block.mlp.fc1.out_features
        kept = (energy * full.mlp.fc2.weight.square().sum(dim=0)).topk(width).indices.sort().values
        fit = RidgeRegression(width, student.config.embed_dim)
        for tokens, _ in streams:
            hidden = F.gelu(full.mlp.fc1(block.norm2(tokens))).flatten(0, 1)
            fit.add(hidden[:, kept], full.mlp.fc2(hidden))
        _set(block.mlp.fc1, full.mlp.fc1.weight[kept], full.mlp.fc1.bias[kept])
        _set(block.mlp.fc2, *fit.solve(MLP_RIDGE))
        streams = [(block.ls2(tokens, block.mlp(block.norm2(tokens))), rope) for tokens, rope in streams]


@torch.no_grad()
def fit_heads(student: VisionTransformer, images: list[Tensor], targets: list[tuple[Tensor, Tensor]]) -> None:
    """Set the student's two heads to the ridge regression of the targets on the last block's normalised tokens.

    Args:
        student: model with heads, changed in place.
        images: normalised batches ``[B,3,H,W]``, this rank's share.
        targets: patch features ``[B,C,h,w]`` and class tokens ``[B,C]`` of each batch.
    """
    prefix, dim = student.config.num_prefix_tokens, student.config.embed_dim
    patch, cls = (RidgeRegression(dim, student.config.output_dim) for _ in range(2))
    for image, (embedding, token) in zip(images, targets, strict=True):
        tokens, rope = student.embed(image)
        for block in student.blocks:
            tokens = block(tokens, rope)
        tokens = student.norm(tokens)
        patch.add(tokens[:, prefix:].flatten(0, 1), embedding.flatten(2).transpose(1, 2).flatten(0, 1))
        cls.add(tokens[:, 0], token)
    _set(student.patch_head, *patch.solve())
    _set(student.cls_head, *cls.solve())


def _set(layer: torch.nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
