"""``python -m dino_uad distill``: from a folder of images to a student's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from dino_uad import parallel
from dino_uad.backbones import DinoBackbone, read_checkpoint
from dino_uad.distill.data import DistillationDataset
from dino_uad.distill.recipe import Recipe
from dino_uad.distill.train import Trainer
from dino_uad.files import atomic_path


def write_student(state: dict[str, Tensor], path: str | Path) -> None:
    """Write weights as half-precision safetensors; the same weights give the same bytes."""
    content = save({key: value.half().contiguous() for key, value in sorted(state.items())}, {"format": "pt"})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def distill(
    data_dir: str,
    output: str,
    arch: str = "dino_uad_tiny14",
    teacher: str = "dinov2_vits14",
    layers: Sequence[int] = (-1,),
    final_norm: bool = True,
    image_size: int = 448,
    device: str | None = None,
    start: str | None = None,
    **recipe: float | str,
) -> str:
    """Distil a small backbone from a teacher's features of the images in a folder; an interrupted run goes on.

    Args:
        data_dir: folder of pictures (PNG, JPEG, ...) and volumes (NIfTI, NRRD, DICOM, ...).
        output: folder for ``student.safetensors``, the checkpoint and the cached features.
        arch: the student's architecture.
        teacher: the teacher's architecture; its weights come from the weight store.
        layers: the teacher's blocks to predict, their mean if several.
        final_norm: whether the target went through the teacher's final norm.
        image_size: side of the images in pixels.
        device: cpu or cuda; the GPU by default if there is one.
        start: weights of a student to go on from with another recipe or other images; else it starts from the teacher.
        recipe: attributes of :class:`Recipe`, for example ``--steps 4000 --batch_size 8 --seed 0``.

    Returns:
        Path of the student's weights; give it as a backbone's ``weights``.

    Raises:
        ValueError: an option that the recipe does not have.
    """
    known = [field.name for field in fields(Recipe)]
    if unknown := set(recipe) - set(known):
        raise ValueError(f"distill has no option --{min(unknown)}; those of the recipe: --{', --'.join(known)}")
    plan, folder = Recipe(**recipe), Path(output)
    blocks = [layers] if isinstance(layers, int) else list(layers)
    path = folder / "student.safetensors"
    with parallel.process_group(device) as place:
        frozen = DinoBackbone(teacher, blocks, final_norm, precision=plan.precision).to(place)
        data = DistillationDataset(data_dir, frozen, image_size, folder / "features", plan.batch_size, place)
        begin = read_checkpoint(start) if start else None
        state = Trainer(arch, data, plan, folder / "checkpoint.pt", place, begin).run()
        if parallel.rank() == 0:
            write_student(state, path)
    return str(path)
