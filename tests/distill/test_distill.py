"""A student's block learns, an interrupted training ends with the same weights, and nothing wrong is taken silently."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dino_uad.backbones.architectures import ARCHITECTURES
from dino_uad.backbones.backbone import DinoBackbone
from dino_uad.backbones.checkpoints import read_checkpoint
from dino_uad.backbones.vit import ViTConfig
from dino_uad.distill.command import distill, write_student
from dino_uad.distill.data import BlockPairs, find_images
from dino_uad.distill.recipe import Recipe
from dino_uad.distill.train import Trainer, feature_loss

TEACHER = ViTConfig(embed_dim=24, depth=4, num_heads=2, position_grid=5)
STUDENT = ViTConfig(embed_dim=24, depth=2, num_heads=2, position_grid=5)
RECIPE = Recipe(steps=12, batch_size=3, warmup=2, learning_rate=3e-3, seed=1)


@pytest.fixture(autouse=True)
def tiny_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "teacher", TEACHER)
    monkeypatch.setitem(ARCHITECTURES, "student", STUDENT)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(5):
        coarse = rng.integers(0, 256, (6, 6), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def teacher(block: int) -> DinoBackbone:
    return DinoBackbone("teacher", layers=[block], final_norm=False, weights="random")


@pytest.fixture
def pairs(pictures: Path, tmp_path: Path) -> BlockPairs:
    return BlockPairs(pictures, teacher(0), teacher(3), image_size=56, cache_dir=tmp_path / "tokens", batch_size=2)


def test_pairs_are_the_tokens_of_the_teacher(pairs: BlockPairs) -> None:
    image = torch.stack([item["image"] for group, _ in pairs.behind.slices() for item in group])
    expected = teacher(0).vit(teacher(0).normalize(image), (0, 3), norm=False)
    for found, tokens in zip(pairs.batch([0, 1, 2, 3, 4]), expected, strict=True):
        torch.testing.assert_close(found, tokens, rtol=1e-3, atol=1e-4)  # patches are kept in half precision


def test_training_lowers_the_loss_on_the_training_images(pairs: BlockPairs, tmp_path: Path) -> None:
    trainer = Trainer("student", pairs, Recipe(steps=60, batch_size=5, warmup=2, learning_rate=1e-2), tmp_path / "c.pt")
    batch = pairs.batch(list(range(5)))
    before = float(trainer.loss(*batch).detach())
    trainer.run()
    assert float(trainer.loss(*batch).detach()) < 0.5 * before


def test_the_other_blocks_are_the_teachers(pairs: BlockPairs, tmp_path: Path) -> None:
    state, given = Trainer("student", pairs, RECIPE, tmp_path / "c.pt").run(until=2), pairs.teacher.vit.state_dict()
    same = {key for key, value in state.items() if torch.equal(value, given[key])}
    changed = state.keys() - same
    assert changed and all(key.startswith("blocks.1.") for key in changed)
    assert {key.split(".")[1] for key in state if key.startswith("blocks.")} == {"0", "1"}


def test_an_interrupted_training_ends_with_identical_weights(pairs: BlockPairs, tmp_path: Path) -> None:
    whole = Trainer("student", pairs, RECIPE, tmp_path / "whole.pt").run()
    Trainer("student", pairs, RECIPE, tmp_path / "parts.pt").run(until=5)
    resumed = Trainer("student", pairs, RECIPE, tmp_path / "parts.pt")
    assert resumed.step == 5
    parts = resumed.run()
    assert all(torch.equal(parts[key], whole[key]) for key in whole)


def test_a_student_goes_on_from_given_weights(pairs: BlockPairs, tmp_path: Path) -> None:
    state = Trainer("student", pairs, RECIPE, tmp_path / "a.pt").run(until=3)
    again = Trainer("student", pairs, RECIPE, tmp_path / "b.pt", start=state)
    assert all(torch.equal(value, state[key]) for key, value in again.student().items())


def test_a_checkpoint_of_another_recipe_is_refused(pairs: BlockPairs, tmp_path: Path) -> None:
    Trainer("student", pairs, RECIPE, tmp_path / "c.pt").run(until=1)
    with pytest.raises(ValueError, match="another seed"):
        Trainer("student", pairs, Recipe(**{**vars(RECIPE), "seed": 2}), tmp_path / "c.pt")


def test_a_student_that_is_not_the_teacher_with_fewer_blocks_is_refused(pairs: BlockPairs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dinov2_vits14 is no student of teacher"):
        Trainer("dinov2_vits14", pairs, RECIPE, tmp_path / "c.pt")
    pairs.teacher.layers = (0,)
    with pytest.raises(ValueError, match="its last one cannot stand for block 0"):
        Trainer("student", pairs, RECIPE, tmp_path / "c.pt")


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


def test_feature_loss_is_the_share_of_the_variance_that_is_missed() -> None:
    target = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    spread = torch.tensor([3e8, 4e8])  # the smooth L1 term vanishes
    assert float(feature_loss(5 * target, target, spread)) == pytest.approx(0, abs=1e-6)
    assert float(feature_loss(target.flip(1), target, spread)) == pytest.approx(2 / 25e16)
    # With a spread of 1 every error of 1 in a channel costs 1/2, the start of smooth L1.
    assert float(feature_loss(target.flip(1), target, torch.ones(2))) == pytest.approx(2 / 2 + 0.5)


def test_the_command_writes_a_student_that_loads_as_a_backbone(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dino_uad.distill.command.DinoBackbone", lambda _, layers, **__: teacher(layers[0]))
    options = {"image_size": 56, "block": 3, "steps": 2, "batch_size": 2, "device": "cpu"}
    path = distill(str(pictures), str(tmp_path / "out"), "student", "teacher", **options)
    image = torch.rand(2, 1, 28, 42)
    found, cls = DinoBackbone("student", layers=[0], final_norm=False, weights=path)(image)
    assert (found.shape, cls.shape) == ((2, 24, 2, 3), (2, 24))
    expected, _ = teacher(0)(image)
    assert float((found - expected).norm() / expected.norm()) < 0.02, "seven bits"


def test_the_same_weights_give_the_same_file(pairs: BlockPairs, tmp_path: Path) -> None:
    state = Trainer("student", pairs, RECIPE, tmp_path / "c.pt").student()
    for name in ("a", "b"):
        write_student(dict(reversed(state.items())) if name == "b" else state, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert read_checkpoint(tmp_path / "a.safetensors").keys() == state.keys()


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        find_images(tmp_path / "missing")
