"""Train a student backbone to predict a teacher's patch features and class token.

AdamW with warm-up and cosine decay, an exponential moving average of the weights as the result, and per-step seeding: a
step depends on the seed and its number alone, so an interrupted run ends with the weights it would have had. Under
``torchrun`` the ranks divide every batch and sum their gradients.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from dino_uad import parallel
from dino_uad.backbones import PRECISIONS, VisionTransformer, architecture
from dino_uad.distill.augment import augment
from dino_uad.distill.data import DistillationDataset
from dino_uad.distill.initialise import initialise, start_state
from dino_uad.distill.recipe import Recipe
from dino_uad.files import save_torch


class Trainer:
    """Optimises one student; :meth:`run` goes on from the last checkpoint.

    Args:
        arch: the student, an architecture with heads as wide as the teacher's features.
        data: images with the teacher's features.
        recipe: how to train.
        checkpoint: file that the state is saved in and resumed from.
        device: where to train.
        start: weights to begin with; None takes the teacher's first blocks and fits the heads by regression.

    Raises:
        ValueError: the student has no heads, or of another width; the checkpoint is of another run.
    """

    def __init__(
        self,
        arch: str,
        data: DistillationDataset,
        recipe: Recipe,
        checkpoint: str | Path,
        device: torch.device | str = "cpu",
        start: dict[str, Tensor] | None = None,
    ) -> None:
        teacher, config = data.features.backbone, architecture(arch)
        if config.output_dim != teacher.embed_dim or config.patch_size != teacher.patch_size:
            raise ValueError(
                f"student {arch} has output_dim {config.output_dim} and patch {config.patch_size}, the teacher "
                f"{teacher.arch} {teacher.embed_dim} and {teacher.patch_size}: they must be equal"
            )
        if recipe.batch_size % parallel.world_size():
            raise ValueError(f"batch_size {recipe.batch_size} is no multiple of the {parallel.world_size()} ranks")
        self.data, self.recipe, self.checkpoint, self.device = data, recipe, Path(checkpoint), torch.device(device)
        self.identity = {"arch": arch, "teacher": teacher.identity, "layers": list(teacher.layers), **asdict(recipe)}
        self.normalize = teacher.to(self.device).normalize
        self.student = VisionTransformer(config)
        self.student.load_state_dict(start or start_state(self.student, teacher.vit, recipe.seed))
        self.student.to(self.device).train()  # evaluation mode would cache the position embedding
        self.student.mask_token.requires_grad_(False)
        self.optimizer = _adamw(self.student, recipe)
        self.step, self.losses = 0, []
        self.mean, self.std = feature_statistics(data)
        if start is None and not self.checkpoint.is_file():
            initialise(self.student, teacher.vit, data, self.normalize, self.device, recipe.batch_size)
        self.average = {key: value.detach().clone() for key, value in self.student.state_dict().items()}
        if self.checkpoint.is_file():
            self._load()

    def run(self, until: int | None = None, save_every: int = 50) -> dict[str, Tensor]:
        """Train to the end of the recipe (or to step ``until``); returns the averaged weights, float32 on the CPU."""
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
        return {key: value.cpu() for key, value in self.average.items()}

    def _train_step(self) -> float:
        recipe = self.recipe
        image, embedding, cls = self.data.batch(recipe.indices(self.step, len(self.data)))
        image, embedding = augment(image, embedding, recipe.generator(self.step), recipe.crop_probability)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(self.step)
        loss = self.loss(image.to(self.device), embedding.to(self.device), cls.to(self.device))
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss is {float(loss)} at step {self.step}; resume with a lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # The ranks' parts of a batch are of equal size: the mean over the batch is the mean over the ranks.
        (loss,) = parallel.all_reduce_sum(loss.detach() / parallel.world_size())
        parallel.sum_gradients(self.student.parameters(), 1 / parallel.world_size())
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
        for key, value in self.student.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)
        return float(loss)

    def loss(self, image: Tensor, embedding: Tensor, cls: Tensor) -> Tensor:
        """Loss of a batch: images ``[B,3,H,W]`` in [0, 1], targets ``[B,C,h,w]`` and ``[B,C]``."""
        dtype = PRECISIONS[self.recipe.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            (tokens,) = self.student(self.normalize(image))
        patches = tokens[:, self.student.config.num_prefix_tokens :].float()
        target = embedding.flatten(2).transpose(1, 2)
        mean, std = self.mean.to(self.device), self.std.to(self.device)
        return feature_loss(patches, target, mean, std) + self.recipe.cls_weight * feature_loss(
            tokens[:, 0].float(), cls, mean, std
        )

    def _save(self) -> None:
        if parallel.rank() > 0:
            return
        state = {
            "identity": self.identity,
            "step": self.step,
            "losses": self.losses,
            "student": self.student.state_dict(),
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
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.losses = state["average"], state["step"], state["losses"]


def feature_loss(predicted: Tensor, target: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Cosine distance of the deviations from the mean plus smooth L1 of standardised channels, of rows ``[...,C]``.

    Without the mean the cosine would mostly measure what all patches have in common. Standardising keeps the few
    channels of large variance of a DINO block from being all that counts.
    """
    cosine = 1 - F.cosine_similarity(predicted - mean, target - mean, dim=-1)
    return cosine.mean() + F.smooth_l1_loss((predicted - mean) / std, (target - mean) / std)


def feature_statistics(data: DistillationDataset, slices: int = 64) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``[C]`` of the patch features, over evenly spaced slices."""
    chosen = torch.linspace(0, len(data) - 1, min(slices, len(data))).round().long().unique().tolist()
    rows = torch.cat([data[index][1].float().flatten(1).T for index in chosen])
    return rows.mean(dim=0), rows.std(dim=0).clamp_min(1e-3)


def _adamw(student: VisionTransformer, recipe: Recipe) -> torch.optim.AdamW:
    trained = [p for p in student.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.ndim == 2 or p.ndim == 4], [p for p in trained if p.ndim not in (2, 4)]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
