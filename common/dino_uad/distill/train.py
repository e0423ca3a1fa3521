"""Train a student to give what some blocks of its teacher give, with its weights rounded as they will be shipped.

AdamW with warm-up and cosine decay, an exponential moving average of the weights as the result, and per-step seeding: a
step depends on the seed and its number alone, so an interrupted run ends with the weights it would have had. Under
``torchrun`` the ranks divide files and every batch, and sum their gradients: only the order of those sums is another.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from tqdm import tqdm

from dino_uad import parallel
from dino_uad.backbones import PRECISIONS, DinoBackbone, VisionTransformer, architecture, rounded, state_digest
from dino_uad.distill.checkpoint import code_version, read_state
from dino_uad.distill.data import VARIATIONS, vary
from dino_uad.distill.loss import feature_loss, missed_share, straight_through
from dino_uad.distill.recipe import Recipe
from dino_uad.distill.shared_slices import SharedSlices
from dino_uad.files import save_torch

SAMPLE = 64  # slices whose targets say how far tokens spread
SAVE_EVERY = 60.0  # seconds


class Trainer:
    """Optimises a student; :meth:`run` goes on from the last checkpoint.

    Args:
        arch: the student, of the teacher's architecture but for its depth.
        teacher: frozen, on the device where to train.
        blocks: of the student by number, and the teacher's that they shall stand for.
        slices: to learn from.
        recipe: how to train.
        checkpoint: file that the state is saved in and resumed from.
        start: weights of a student to begin with; None takes the teacher's first blocks.

    Raises:
        ValueError: the student is not the teacher with fewer blocks; the checkpoint is of another run.
    """

    def __init__(
        self,
        arch: str,
        teacher: DinoBackbone,
        blocks: Mapping[int, int],
        slices: SharedSlices,
        recipe: Recipe,
        checkpoint: str | Path,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        _require_shorter(arch, teacher, blocks)
        if recipe.batch_size % (4 * parallel.world_size()):
            raise ValueError(
                f"batch_size is {recipe.batch_size}; expected a multiple of {4 * parallel.world_size()}: four for each "
                "rank, since every second step has a quarter as many slices"
            )
        self.teacher, self.blocks, self.slices, self.recipe = teacher, dict(blocks), slices, recipe
        self.checkpoint, self.device = Path(checkpoint), teacher.mean.device
        self.identity = {
            "arch": arch,
            "teacher": teacher.identity,
            "blocks": list(self.blocks.items()),
            "slices": slices.digest(),
            "code": code_version(),
            "start": state_digest(dict(start)) if start else None,
            **asdict(recipe),
        }
        self.vit = _beginning(arch, start or teacher.vit.state_dict()).to(self.device)
        shared = max((student for student, given in blocks.items() if student == given), default=-1)
        self.optimizer = _adamw(self.vit, recipe, shared)
        self.average = {key: value.detach().clone() for key, value in self.vit.state_dict().items()}
        self.step, self.losses = 0, []
        self.sample = self._sample()
        targets = (F.normalize(one, dim=-1).flatten(0, 1) for one in self.sample[1])
        self.spread = [one.std(dim=0).clamp_min(1e-6) for one in targets]
        self._resume()

    def run(self, until: int | None = None) -> dict[str, Tensor]:
        """Train to the end of the recipe (or to step ``until``); returns the student's weights, float32 on the CPU."""
        stop = self.recipe.steps if until is None else min(until, self.recipe.steps)
        saved = time.monotonic()
        bar = tqdm(
            total=self.recipe.steps, initial=self.step, desc="distilling", unit="step", disable=parallel.rank() > 0
        )
        while self.step < stop:
            self.losses.append(self._train_step())
            self.step += 1
            bar.set_postfix(loss=f"{sum(self.losses[-50:]) / len(self.losses[-50:]):.4f}", refresh=False)
            bar.update()
            if self.step == stop or time.monotonic() - saved > SAVE_EVERY:
                self._save()
                saved = time.monotonic()
        bar.close()
        return self.student()

    @torch.no_grad()
    def missed(self, weights: Mapping[str, Tensor]) -> dict[int, float]:
        """By block of the teacher: the share of the variance of unit tokens that a rounded student misses.

        Measured on evenly spaced slices in the middle of what :func:`vary` does.
        """
        images, targets = self.sample
        used = {name: rounded(name, weights[name].to(self.device)) for name, _ in self.vit.named_parameters()}
        found = self._tokens(used, images)
        return {
            block: float(missed_share(F.normalize(one, dim=-1) - F.normalize(target, dim=-1), spread))
            for block, one, target, spread in zip(self.blocks.values(), found, targets, self.spread, strict=True)
        }

    def student(self) -> dict[str, Tensor]:
        """The average of the weights, by their names."""
        return {key: value.cpu().clone() for key, value in self.average.items()}

    def _train_step(self) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.recipe.learning_rate_at(self.step)
        size, chosen, drawn = self.recipe.draw(self.step, len(self.slices), VARIATIONS)
        loss = self.loss(vary(parallel.share(self.slices.take(chosen)), size, drawn))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # The ranks' parts of a batch are of equal size: the mean over the batch is the mean over the ranks.
        (loss,) = parallel.all_reduce_sum(loss.detach() / parallel.world_size())
        parallel.sum_gradients(self.vit.parameters(), 1 / parallel.world_size())
        torch.nn.utils.clip_grad_norm_(self.vit.parameters(), 1.0)
        self.optimizer.step()
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), list(self.vit.state_dict().values()), 1 - decay)
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the loss is {float(loss)} at step {self.step}, with learning_rate {self.recipe.learning_rate:g}; "
                f"start again with a lower one, into another output folder (or without {self.checkpoint})"
            )
        return float(loss)

    def loss(self, images: Tensor) -> Tensor:
        """Loss of a batch ``[B,3,H,W]`` in [0, 1]: the mean of those of the blocks."""
        used = {name: straight_through(name, weight) for name, weight in self.vit.named_parameters()}
        found, wanted = self._tokens(used, images), self._targets(images)
        losses = [
            feature_loss(one, target, spread) for one, target, spread in zip(found, wanted, self.spread, strict=True)
        ]
        return torch.stack(losses).mean()

    def _tokens(self, weights: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
        with self._autocast():
            found = functional_call(self.vit, dict(weights), (self.teacher.normalize(images), list(self.blocks), False))
        return [one.float() for one in found]

    @torch.no_grad()
    def _targets(self, images: Tensor) -> list[Tensor]:
        with self._autocast():
            outputs = self.teacher.vit(self.teacher.normalize(images), list(self.blocks.values()), norm=False)
        return [output.float() for output in outputs]

    def _autocast(self) -> torch.autocast:
        dtype = PRECISIONS[self.recipe.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def _sample(self) -> tuple[Tensor, list[Tensor]]:
        count = min(SAMPLE, len(self.slices))
        chosen = torch.linspace(0, len(self.slices) - 1, count).round().long().tolist()
        images = vary(self.slices.take(chosen), self.recipe.image_size, torch.full((VARIATIONS, count), 0.5))
        return images, self._targets(images)

    def _save(self) -> None:
        if parallel.rank() > 0:
            return
        state = {
            "identity": self.identity,
            "step": self.step,
            "losses": self.losses,
            "weights": self.vit.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        save_torch(state, self.checkpoint)

    def _resume(self) -> None:
        state = read_state(self.checkpoint, self.identity, self.device)
        if state is None:
            return
        self.vit.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.losses = state["average"], state["step"], state["losses"]


def _require_shorter(arch: str, teacher: DinoBackbone, blocks: Mapping[int, int]) -> None:
    student, given = architecture(arch), architecture(teacher.arch)
    if student != replace(given, depth=student.depth) or given.num_registers or given.rope:
        raise ValueError(
            f"{arch} is no student of {teacher.arch}: expected the same widths, patch and position embedding, without "
            "registers (a DINOv2 teacher), and another depth"
        )
    pairs = blocks.items() if isinstance(blocks, Mapping) else [(-1, -1)]
    wrong = [pair for pair in pairs if not (0 <= pair[0] < student.depth and pair[0] <= pair[1] < given.depth)]
    if wrong or max(blocks, default=-1) != student.depth - 1:
        raise ValueError(
            f"blocks is {blocks}; expected blocks of {arch} (0 to {student.depth - 1}, the last among them) and "
            f"for each the same or a later one of {teacher.arch} (up to {given.depth - 1})"
        )


def _beginning(arch: str, weights: Mapping[str, Tensor]) -> VisionTransformer:
    with torch.device("meta"):
        vit = VisionTransformer(architecture(arch))
    vit.load_state_dict({key: weights[key].detach().float().clone() for key in vit.state_dict()}, assign=True)
    return vit.requires_grad_(True).train()


def _adamw(vit: nn.Module, recipe: Recipe, shared: int) -> torch.optim.AdamW:
    """Matrices decay; what stands before block ``shared`` and in it has the smaller rate."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in vit.named_parameters():
        given = not name.startswith("blocks.") or int(name.split(".")[1]) <= shared
        groups.setdefault((given, parameter.ndim == 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": recipe.weight_decay if matrices else 0.0,
                "share": recipe.given_rate if given else 1.0,
            }
            for (given, matrices), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )
