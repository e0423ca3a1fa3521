"""``python -m dino_uad distill``: from a folder of images to a student's weights."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from dino_uad import parallel
from dino_uad.backbones import DinoBackbone, architecture, blocks_to_read, pack_state, read_checkpoint
from dino_uad.distill.data import BlockPairs
from dino_uad.distill.recipe import Recipe
from dino_uad.distill.train import Trainer
from dino_uad.files import atomic_path


def write_student(state: dict[str, Tensor], path: str | Path) -> None:
    """Write weights in seven bits as safetensors; the same weights give the same bytes."""
    content = save(pack_state(state), {"format": "pt"})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def distill(
    data_dir: str,
    output: str,
    arch: str = "dino_uad_tiny14",
    teacher: str = "dinov2_vits14",
    block: int | None = None,
    image_size: int = 224,
    device: str | None = None,
    start: str | None = None,
    **recipe: float | str,
) -> str:
    """Distil the last block of a student whose other blocks are its teacher's; an interrupted run goes on.

    Args:
        data_dir: folder of pictures (PNG, JPEG, ...) and volumes (NIfTI, NRRD, DICOM, ...).
        output: folder for ``student.safetensors``, the checkpoint and the cached tokens.
        arch: the student's architecture, the teacher's with fewer blocks.
        teacher: the teacher's architecture; its weights come from the weight store.
        block: the teacher's block that the student's last one shall stand for; the last that bundles read by default.
        image_size: side of the images in pixels.
        device: cpu or cuda; the GPU by default if there is one.
        start: weights of a student to go on from with another recipe or other images; else the block starts as the
            teacher's own next one.
        recipe: attributes of :class:`Recipe`, for example ``--steps 4000 --batch_size 8 --seed 0``.

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
    last = blocks_to_read(teacher)[-1] if block is None else block
    with parallel.process_group(device) as place:
        before, behind = (
            DinoBackbone(teacher, [index], final_norm=False, precision=plan.precision).to(place)
            for index in (architecture(arch).depth - 2, last)
        )
        pairs = BlockPairs(data_dir, before, behind, image_size, folder / "tokens", plan.batch_size, place)
        begin = read_checkpoint(start) if start else None
        state = Trainer(arch, pairs, plan, folder / "checkpoint.pt", place, begin).run()
        if parallel.rank() == 0:
            write_student(state, path)
    return str(path)
