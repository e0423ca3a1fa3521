"""A student learns, an interrupted training ends with the same weights, and nothing wrong is taken silently."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dino_uad.backbones.architectures import ARCHITECTURES
from dino_uad.backbones.backbone import DinoBackbone, random_state
from dino_uad.backbones.checkpoints import read_checkpoint
from dino_uad.backbones.vit import VisionTransformer, ViTConfig
from dino_uad.distill.command import write_student
from dino_uad.distill.data import DistillationDataset, find_images
from dino_uad.distill.initialise import RidgeRegression, shrink_mlps, start_state
from dino_uad.distill.recipe import Recipe
from dino_uad.distill.train import Trainer, feature_loss

TEACHER = ViTConfig(embed_dim=24, depth=3, num_heads=2, position_grid=5)
STUDENT = ViTConfig(embed_dim=16, depth=1, num_heads=2, position_grid=5, output_dim=24)
RECIPE = Recipe(steps=12, batch_size=3, warmup=2, learning_rate=3e-3, seed=1)


@pytest.fixture(autouse=True)
def tiny_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "teacher", TEACHER)
    monkeypatch.setitem(ARCHITECTURES, "student", STUDENT)


@pytest.fixture
def data(tmp_path: Path) -> DistillationDataset:
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(5):
        coarse = rng.integers(0, 256, (6, 6), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    teacher = DinoBackbone("teacher", layers=(1, 2), weights="random")
    return DistillationDataset(folder, teacher, image_size=56, cache_dir=tmp_path / "features", batch_size=2)


def test_training_lowers_the_loss_on_the_training_images(data: DistillationDataset, tmp_path: Path) -> None:
    trainer = Trainer("student", data, Recipe(steps=60, batch_size=5, warmup=2, learning_rate=1e-2), tmp_path / "c.pt")
    torch.nn.init.zeros_(trainer.student.patch_head.weight)  # the regression would already fit so few patches
    batch = data.batch(list(range(5)))
    before = float(trainer.loss(*batch).detach())
    trainer.run()
    assert float(trainer.loss(*batch).detach()) < 0.8 * before


def test_an_interrupted_training_ends_with_identical_weights(data: DistillationDataset, tmp_path: Path) -> None:
    whole = Trainer("student", data, RECIPE, tmp_path / "whole.pt").run()
    Trainer("student", data, RECIPE, tmp_path / "parts.pt").run(until=5)
    resumed = Trainer("student", data, RECIPE, tmp_path / "parts.pt")
    assert resumed.step == 5
    parts = resumed.run()
    assert all(torch.equal(parts[key], whole[key]) for key in whole)


def test_a_checkpoint_of_another_recipe_is_refused(data: DistillationDataset, tmp_path: Path) -> None:
    Trainer("student", data, RECIPE, tmp_path / "c.pt").run(until=1)
    with pytest.raises(ValueError, match="another seed"):
        Trainer("student", data, Recipe(**{**vars(RECIPE), "seed": 2}), tmp_path / "c.pt")


def test_a_student_of_another_width_is_refused(data: DistillationDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="output_dim None"):
        Trainer("dinov2_vits14", data, RECIPE, tmp_path / "c.pt")


def test_every_epoch_visits_every_slice_once() -> None:
    recipe = Recipe(batch_size=4)
    visited = [index for step in range(7) for index in recipe.indices(step, 14)]
    assert sorted(visited[:14]) == sorted(visited[14:]) == list(range(14))
    assert visited[:14] != visited[14:]


def test_learning_rate_warms_up_and_decays_to_zero() -> None:
    recipe = Recipe(steps=100, warmup=10, learning_rate=1.0)
    rates = [recipe.learning_rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_feature_loss_is_zero_for_the_target_and_one_for_orthogonal_directions() -> None:
    target = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    mean, std = torch.zeros(2), torch.full((2,), 1e9)  # the smooth L1 term vanishes
    assert float(feature_loss(target, target, mean, std)) == pytest.approx(0, abs=1e-6)
    assert float(feature_loss(target.flip(1), target, mean, std)) == pytest.approx(1, abs=1e-6)


def test_ridge_regression_recovers_a_linear_map_with_offset() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=generator)
    weight, bias = torch.randn(3, 6, generator=generator), torch.randn(3, generator=generator)
    fit = RidgeRegression(6, 3)
    for part in x.split(123):
        fit.add(part, part @ weight.T + bias)
    found = fit.solve(ridge=1e-6)
    assert torch.allclose(found[0], weight, atol=1e-4)
    assert torch.allclose(found[1], bias, atol=1e-4)


def test_student_file_is_half_precision_and_loads_as_a_backbone(data: DistillationDataset, tmp_path: Path) -> None:
    state = Trainer("student", data, RECIPE, tmp_path / "c.pt").run(until=1)
    write_student(state, tmp_path / "student.safetensors")
    assert all(torch.equal(value, state[key].half().float()) for key, value in _read(tmp_path).items())
    backbone = DinoBackbone("student", weights=str(tmp_path / "student.safetensors"))
    embeddings, cls = backbone(torch.rand(2, 1, 28, 42))
    assert embeddings.shape == (2, 24, 2, 3)
    assert cls.shape == (2, 24)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        find_images(tmp_path / "missing")


def _read(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "student.safetensors")


def test_shrunk_mlps_keep_the_channels_that_matter() -> None:
    wide = ViTConfig(embed_dim=16, depth=2, num_heads=2, position_grid=4)
    narrow = ViTConfig(embed_dim=16, depth=2, num_heads=2, position_grid=4, mlp_ratio=2, output_dim=16)
    teacher, student = VisionTransformer(wide).eval(), VisionTransformer(narrow).eval()
    teacher.load_state_dict(random_state(teacher, 3))
    for number, block in enumerate(teacher.blocks):
        block.mlp.fc2.weight.data[:, number::2] = 0  # half of the hidden channels say nothing
    student.load_state_dict(start_state(student, teacher, 0))
    images = list(torch.randn(3, 4, 3, 56, 56, generator=torch.Generator().manual_seed(0)))
    shrink_mlps(student, teacher, images)
    tokens, _ = teacher.embed(images[0])
    expected = found = tokens
    for full, small in zip(teacher.blocks, student.blocks, strict=True):
        expected, found = full(expected, None), small(found, None)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.std()))
