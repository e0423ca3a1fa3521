"""Train a student's last block to give what a later block of its teacher gives.

AdamW with warm-up and cosine decay, an exponential moving average of the weights as the result, and per-step seeding: a
step depends on the seed and its number alone, so an interrupted run ends with the weights it would have had. Under
``torchrun`` the ranks divide every batch and sum their gradients.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from dino_uad import parallel
from dino_uad.backbones import PRECISIONS, DinoBackbone, VisionTransformer, architecture
from dino_uad.distill.data import BlockPairs
from dino_uad.distill.recipe import Recipe
from dino_uad.files import save_torch

SAMPLE = 64  # slices whose targets say how far tokens spread


class Trainer:
    """Optimises one block; :meth:`run` goes on from the last checkpoint.

    Args:
        arch: the student, of the teacher's architecture but for its depth.
        pairs: the teacher's tokens before and behind.
        recipe: how to train.
        checkpoint: file that the state is saved in and resumed from.
        device: where to train.
        start: weights of a student to begin with; None takes the teacher's next block.

    Raises:
        ValueError: the student is not the teacher with fewer blocks; the checkpoint is of another run.
    """

    def __init__(
        self,
        arch: str,
        pairs: BlockPairs,
        recipe: Recipe,
        checkpoint: str | Path,
        device: torch.device | str = "cpu",
        start: dict[str, Tensor] | None = None,
    ) -> None:
        self.teacher = pairs.teacher
        _require_shorter(arch, self.teacher)
        if recipe.batch_size % parallel.world_size():
            raise ValueError(f"batch_size {recipe.batch_size} is no multiple of the {parallel.world_size()} ranks")
        self.arch, self.pairs, self.recipe = arch, pairs, recipe
        self.checkpoint, self.device = Path(checkpoint), torch.device(device)
        self.identity = {
            "arch": arch,
            "teacher": self.teacher.identity,
            "block": self.teacher.layers[0],
            **asdict(recipe),
        }
        last = architecture(arch).depth - 1
        self.prefix = f"blocks.{last}."
        self.block = copy.deepcopy(self.teacher.vit.blocks[last])
        if start is not None:
            self.block.load_state_dict(_below(start, self.prefix))
        self.block.to(self.device).requires_grad_(True).train()
        self.optimizer = _adamw(self.block, recipe)
        self.average = {key: value.detach().clone() for key, value in self.block.state_dict().items()}
        self.step, self.losses = 0, []
        targets = F.normalize(pairs.sample(SAMPLE).to(self.device), dim=-1)
        self.spread = targets.flatten(0, 1).std(dim=0).clamp_min(1e-6)
        if self.checkpoint.is_file():
            self._load()

    def run(self, until: int | None = None, save_every: int = 50) -> dict[str, Tensor]:
        """Train to the end of the recipe (or to step ``until``); returns the student's weights, float32 on the CPU."""
        stop = self.recipe.steps if until is None else min(until, self.recipe.steps)
        bar = tqdm(
            total=self.recipe.steps, initial=self.step, desc="distilling", unit="step", disable=parallel.rank() > 0
        )
        while self.step < stop:
            self.losses.append(self._train_step())
            self.step += 1
            bar.set_postfix(loss=f"{sum(self.losses[-50:]) / len(self.losses[-50:]):.4f}", refresh=False)
            bar.update()
            if self.step % save_every == 0 or self.step == stop:
                self._save()
        bar.close()
        return self.student()

    def student(self) -> dict[str, Tensor]:
        """The teacher's first blocks and the average of the trained one, under the student's keys."""
        with torch.device("meta"):
            keys = VisionTransformer(architecture(self.arch)).state_dict().keys()
        given = self.teacher.vit.state_dict()
        trained = {self.prefix + key: value for key, value in self.average.items()}
        return {key: trained.get(key, given.get(key)).detach().cpu().clone() for key in keys}

    def _train_step(self) -> float:
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(self.step)
        tokens, target = self.pairs.batch(recipe.indices(self.step, len(self.pairs)))
        loss = self.loss(tokens.to(self.device), target.to(self.device))
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss is {float(loss)} at step {self.step}; resume with a lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # The ranks' parts of a batch are of equal size: the mean over the batch is the mean over the ranks.
        (loss,) = parallel.all_reduce_sum(loss.detach() / parallel.world_size())
        parallel.sum_gradients(self.block.parameters(), 1 / parallel.world_size())
        torch.nn.utils.clip_grad_norm_(self.block.parameters(), 1.0)
        self.optimizer.step()
        decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
        for key, value in self.block.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)
        return float(loss)

    def loss(self, tokens: Tensor, target: Tensor) -> Tensor:
        """Loss of a batch of tokens ``[B,1+N,C]`` before the block and behind."""
        dtype = PRECISIONS[self.recipe.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            found = self.block(tokens, None).float()
        return feature_loss(found, target, self.spread)

    def _save(self) -> None:
        if parallel.rank() > 0:
            return
        state = {
            "identity": self.identity,
            "step": self.step,
            "losses": self.losses,
            "block": self.block.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        save_torch(state, self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["identity"] != self.identity:
            different = [key for key, value in self.identity.items() if state["identity"].get(key) != value]
            raise ValueError(
                f"{self.checkpoint} belongs to a run with another {', '.join(different)}; continue with the same "
                "arguments, or choose another output folder"
            )
        self.block.load_state_dict(state["block"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.losses = state["average"], state["step"], state["losses"]


def feature_loss(found: Tensor, target: Tensor, spread: Tensor) -> Tensor:
    """Share of the variance that is missed, plus the smooth L1 of standardised channels, of unit vectors.

    Heads compare tokens of unit length. A few channels have most of their variance; standardised, all of them count.

    Args:
        found: tokens ``[...,C]`` of any length.
        target: the teacher's, likewise.
        spread: standard deviation ``[C]`` of the target's unit vectors.
    """
    error = F.normalize(found, dim=-1) - F.normalize(target, dim=-1)
    missed = error.square().sum(dim=-1).mean() / spread.square().sum()
    return missed + F.smooth_l1_loss(error / spread, torch.zeros_like(error))


def _require_shorter(arch: str, teacher: DinoBackbone) -> None:
    student, given = architecture(arch), architecture(teacher.arch)
    if student != replace(given, depth=student.depth) or given.num_registers or given.rope:
        raise ValueError(
            f"{arch} is no student of {teacher.arch}: expected the same widths, patch and position embedding, without "
            "registers (a DINOv2 teacher), and another depth"
        )
    if not 2 <= student.depth <= teacher.layers[0] + 1:
        raise ValueError(
            f"{arch} has {student.depth} blocks: its last one cannot stand for block {teacher.layers[0]} (from 0) of "
            f"{teacher.arch}; expected at least block {student.depth - 1}, and a student of two blocks or more"
        )


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _adamw(block: torch.nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [parameter for parameter in block.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in block.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
