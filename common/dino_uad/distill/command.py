"""``python -m dino_uad distill``: from a folder of images to a student's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from dino_uad import parallel
from dino_uad.backbones import STUDENTS, DinoBackbone, pack_state, read_checkpoint
from dino_uad.distill.data import read_slices
from dino_uad.distill.recipe import Recipe
from dino_uad.distill.train import Trainer
from dino_uad.files import atomic_path


def write_student(state: dict[str, Tensor], path: str | Path) -> None:
    """Write packed weights as safetensors; the same weights give the same bytes."""
    content = save(pack_state(state), {"format": "pt"})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def distill(
    data_dir: str,
    output: str,
    arch: str = "dino_uad_tiny14",
    teacher: str = "dinov2_vits14",
    blocks: Mapping[int, int] | None = None,
    device: str | None = None,
    start: str | None = None,
    **recipe: float | str,
) -> str:
    """Distil a student with fewer blocks than its teacher, whose first ones it begins as; an interrupted run goes on.

    Args:
        data_dir: folder of pictures (PNG, JPEG, ...) and volumes (NIfTI, NRRD, DICOM, ...).
        output: folder for ``student.safetensors`` and the checkpoint.
        arch: the student's architecture, the teacher's with fewer blocks.
        teacher: the teacher's architecture; its weights come from the weight store.
        blocks: blocks of the student and the teacher's that they shall stand for, such as ``{5: 5, 7: 8}``; by default
            those that bundles read.
        device: cpu or cuda; the GPU by default if there is one.
        start: weights of a student to go on from with another recipe or other images.
        recipe: ``--steps``, ``--batch_size``, ``--image_size``, ``--learning_rate``, ``--given_rate``, ``--warmup``,
            ``--weight_decay``, ``--ema``, ``--seed`` and ``--precision``, as ``distill/recipe.py`` explains them.

    Returns:
        Path of the student's weights; give it as a backbone's ``weights``.

    Raises:
        ValueError: an option that the recipe does not have; a student that is not the teacher with fewer blocks.
    """
    known = [field.name for field in fields(Recipe)]
    if unknown := set(recipe) - set(known):
        raise ValueError(f"distill has no option --{min(unknown)}; those of the recipe: --{', --'.join(known)}")
    plan, folder = Recipe(**recipe), Path(output)
    path = folder / "student.safetensors"
    with parallel.process_group(device) as place:
        frozen = DinoBackbone(teacher, precision=plan.precision).to(place)
        trainer = Trainer(
            arch,
            frozen,
            blocks or STUDENTS.get(arch, {}),
            read_slices(data_dir, device=place),
            plan,
            folder / "checkpoint.pt",
            read_checkpoint(start) if start else None,
        )
        before = trainer.missed(trainer.student()) if trainer.step == 0 else {}
        state = trainer.run()
        after = trainer.missed(state)
        if parallel.rank() == 0:
            write_student(state, path)
            for block, share in after.items():
                untrained = f", before training {before[block]:.2%}" if before else ""
                print(f"block {block}: {share:.2%} of the variance of the teacher's tokens is missed{untrained}")
    return str(path)
