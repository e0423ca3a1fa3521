"""A student learns, an interrupted training ends with the same weights, and nothing wrong is taken silently."""

import functools
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from dino_uad import parallel
from dino_uad.backbones.architectures import ARCHITECTURES
from dino_uad.backbones.backbone import DinoBackbone
from dino_uad.backbones.checkpoints import read_checkpoint
from dino_uad.backbones.packed import pack_state, unpack_state
from dino_uad.backbones.vit import ViTConfig
from dino_uad.distill import train
from dino_uad.distill.command import distill, write_student
from dino_uad.distill.data import VARIATIONS, find_images, read_slices, vary
from dino_uad.distill.loss import feature_loss, straight_through
from dino_uad.distill.recipe import Recipe
from dino_uad.distill.shared_slices import SharedSlices
from dino_uad.distill.train import Trainer
from workflows import run_in_group

TEACHER = ViTConfig(embed_dim=24, depth=4, num_heads=2, position_grid=5)
STUDENT = ViTConfig(embed_dim=24, depth=3, num_heads=2, position_grid=5)
BLOCKS = {0: 0, 2: 3}
RECIPE = Recipe(steps=12, batch_size=4, image_size=28, warmup=2, learning_rate=3e-3, seed=1)


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
        coarse = rng.integers(0, 256, (6, 6, 3) if index == 2 else (6, 6), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def teacher() -> DinoBackbone:
    return DinoBackbone("teacher", weights="random")


@pytest.fixture
def trainer(pictures: Path, tmp_path: Path) -> Callable[..., Trainer]:
    slices = read_slices(pictures, 64)

    def make(name: str = "c.pt", recipe: Recipe = RECIPE, **options: object) -> Trainer:
        asked = {"arch": "student", "teacher": teacher(), "blocks": BLOCKS, "slices": slices} | options
        return Trainer(recipe=recipe, checkpoint=tmp_path / name, **asked)

    return make


def test_slices_are_the_files_of_the_folder(pictures: Path) -> None:
    slices = read_slices(pictures, 64)
    assert len(slices) == 5
    for index, found in enumerate(slices.take(range(5))):
        expected = np.asarray(Image.open(pictures / f"{index}.png"))
        assert np.array_equal(found.numpy(), np.moveaxis(np.atleast_3d(expected), 2, 0))


def test_a_slice_that_nothing_is_done_to_is_itself_and_a_mirrored_one_is_mirrored() -> None:
    slices = [torch.randint(256, (1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))] * 2
    still = torch.tensor([0.5, 0.5, 2 / 3, 0.5, 0.5, 0.5])  # not mirrored, no angle, zoom 1, no shift, gamma 1
    drawn = torch.stack((still, still), dim=1)
    drawn[0, 1] = 0
    plain, mirrored = vary(slices, 32, drawn)
    torch.testing.assert_close(plain, (slices[0] / 255).expand(3, -1, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored, plain.flip(2), atol=1e-5, rtol=0)


def test_variations_stay_in_the_unit_range_and_differ() -> None:
    slices = [torch.randint(256, (3, 40, 40), dtype=torch.uint8)] * 4
    varied = vary(slices, 28, torch.rand(VARIATIONS, 4, generator=torch.Generator().manual_seed(0)))
    assert varied.shape == (4, 3, 28, 28) and varied.min() >= 0 and varied.max() <= 1
    assert all(not torch.equal(varied[0], other) for other in varied[1:])


def test_weights_are_used_as_they_will_be_read_and_have_the_gradient_of_the_weights() -> None:
    weight = torch.randn(4, 16, requires_grad=True, generator=torch.Generator().manual_seed(0))
    used = straight_through("blocks.0.w", weight)
    torch.testing.assert_close(used, unpack_state(pack_state({"blocks.0.w": weight.detach()}))["blocks.0.w"])
    (gradient,) = torch.autograd.grad((used * torch.arange(16.0)).sum(), weight)
    assert torch.equal(gradient, torch.arange(16.0).expand(4, -1))
    bias = torch.randn(16)
    assert straight_through("blocks.0.b", bias) is bias


def test_training_lowers_the_loss_on_the_training_images(trainer) -> None:
    one = trainer(recipe=Recipe(steps=60, batch_size=8, image_size=28, warmup=2, learning_rate=1e-2))
    images = vary(one.slices.take(range(5)), 56, torch.full((VARIATIONS, 5), 0.5))
    before, missed = float(one.loss(images).detach()), one.missed(one.student())
    one.run()
    assert float(one.loss(images).detach()) < 0.6 * before
    assert one.missed(one.student())[3] < missed[3]


def test_it_begins_as_the_teachers_first_blocks(trainer) -> None:
    given = teacher().vit.state_dict()
    state = trainer().student()
    assert all(torch.equal(value, given[key]) for key, value in state.items())
    assert {key.split(".")[1] for key in state if key.startswith("blocks.")} == {"0", "1", "2"}


def test_what_student_and_teacher_have_in_common_learns_slowly(trainer) -> None:
    one = trainer()
    quick = {id(p) for group in one.optimizer.param_groups if group["share"] == 1.0 for p in group["params"]}
    slow = {
        id(p) for group in one.optimizer.param_groups if group["share"] == RECIPE.given_rate for p in group["params"]
    }
    assert quick == {id(p) for p in one.vit.blocks[1:].parameters()}
    assert slow == {id(p) for p in one.vit.parameters()} - quick


def test_an_interrupted_training_ends_with_identical_weights(trainer) -> None:
    whole = trainer("whole.pt").run()
    trainer("parts.pt").run(until=5)
    resumed = trainer("parts.pt")
    assert resumed.step == 5
    parts = resumed.run()
    assert all(torch.equal(parts[key], whole[key]) for key in whole)


def test_a_student_goes_on_from_given_weights(trainer) -> None:
    state = trainer("a.pt").run(until=3)
    again = trainer("b.pt", start=state)
    assert all(torch.equal(value, state[key]) for key, value in again.student().items())


def test_a_checkpoint_of_another_recipe_is_refused(trainer) -> None:
    trainer().run(until=1)
    with pytest.raises(ValueError, match="another seed"):
        trainer(recipe=Recipe(**{**vars(RECIPE), "seed": 2}))
    with pytest.raises(ValueError, match="another start"):
        trainer(start=trainer("other.pt").student())


def test_a_checkpoint_of_other_images_or_code_is_refused(trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = trainer().slices.take(range(5))
    trainer().run(until=1)
    assert trainer(slices=SharedSlices([[one.clone()] for one in slices], 64)).step == 1, "the same values"
    assert trainer(slices=SharedSlices([slices[:2], [], slices[2:]], 64)).step == 1, "in whatever files"
    for others in ([255 - one for one in slices], slices[::-1], slices[:-1]):
        with pytest.raises(ValueError, match=r"c\.pt belongs to a run with another slices; .*or delete that file"):
            trainer(slices=SharedSlices([others], 64))
    monkeypatch.setattr(train, "code_version", lambda: "another")
    with pytest.raises(ValueError, match="another code"):
        trainer()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"text", lambda b: b""])
def test_a_damaged_checkpoint_is_replaced(trainer, tmp_path: Path, caplog, damage) -> None:
    whole = trainer("whole.pt").run(until=2)
    trainer().run(until=1)
    (tmp_path / "c.pt").write_bytes(damage((tmp_path / "c.pt").read_bytes()))
    again = trainer()
    assert again.step == 0 and "c.pt is damaged or no checkpoint" in caplog.text
    state = again.run(until=2)
    assert all(torch.equal(state[key], value) for key, value in whole.items())
    assert trainer().step == 2


def test_what_is_advised_of_a_loss_that_is_no_number_can_be_done(trainer) -> None:
    trainer().run(until=1)
    ill = trainer()
    ill.slices = SharedSlices([[torch.full((1, 64, 64), torch.nan)] * 5], 64)
    with pytest.raises(RuntimeError, match=r"at step 1, with learning_rate 0.003; start again with a lower one, into"):
        ill.run()
    lower = Recipe(**{**vars(RECIPE), "learning_rate": 1e-4})
    assert trainer("another/c.pt", lower).step == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "dinov2_vits14"}, "dinov2_vits14 is no student of teacher"),
        ({"blocks": {0: 0}}, r"expected blocks of student \(0 to 2, the last among them\)"),
        ({"blocks": {2: 1}}, "the same or a later one of teacher"),
        ({"blocks": {}}, "expected blocks of student"),
        ({"blocks": 5}, "blocks is 5; expected blocks of student"),
        ({"recipe": Recipe(batch_size=6)}, "batch_size is 6; expected a multiple of 4"),
    ],
)
def test_what_cannot_be_trained_is_refused(trainer, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(**options)


@pytest.mark.parametrize(
    "setting",
    [{"steps": 0}, {"steps": "many"}, {"warmup": -1}, {"learning_rate": "fast"}, {"ema": 1.0}, {"weight_decay": -0.1}],
)
def test_a_recipe_of_other_values_is_refused(setting) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(setting))} is .*; expected a "):
        Recipe(**setting)


def test_ranks_divide_what_one_process_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(batch_size=8)
    for step in (0, 1):
        size, whole, drawn = recipe.draw(step, 100, 3)
        assert (size, len(whole)) == ((224, 8), (448, 2))[step]
        shares = []
        for rank in (0, 1):
            for module in (parallel, parallel.division):
                monkeypatch.setattr(module, "world_size", lambda: 2)
                monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
            same, numbers, own = recipe.draw(step, 100, 3)
            assert (same, numbers) == (size, whole)
            shares.append((parallel.share(numbers), own))
        monkeypatch.undo()
        assert whole == [index for pair in zip(*(share[0] for share in shares), strict=True) for index in pair]
        assert torch.equal(drawn, torch.stack([share[1] for share in shares], dim=2).flatten(1))


def train_in_a_group(pictures: Path, folder: Path) -> None:
    """Half of a training, of each rank; the tiny architectures are not known in a process of its own."""
    ARCHITECTURES.update(teacher=TEACHER, student=STUDENT)
    with parallel.process_group("cpu"):
        recipe, slices = Recipe(**{**vars(RECIPE), "batch_size": 8}), read_slices(pictures, 64)
        assert len(slices) == 5
        assert len(slices._mine) == (5 if parallel.world_size() == 1 else 3 - parallel.rank()), "of files read here"
        state = Trainer("student", teacher(), BLOCKS, slices, recipe, folder / "c.pt").run(until=5)
        torch.save(state, folder / f"{parallel.rank()}.pt")


def test_two_ranks_train_as_one_process_does(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    train_in_a_group(pictures, tmp_path / "one")
    assert run_in_group(2, functools.partial(train_in_a_group, pictures, tmp_path)) == [0, 0]
    one, first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("one/0.pt", "0.pt", "1.pt"))
    for key, value in one.items():
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-5)


def slices_in_a_group(pictures: Path, folder: Path) -> None:
    """Slices as each of more ranks than files sees them, and their digest."""
    with parallel.process_group("cpu"):
        slices = read_slices(pictures, 64)
        found = [*slices.take([2, 0, 1, 2]), *slices.take([1])]
        torch.save((torch.stack(found), slices.digest()), folder / f"{parallel.rank()}.pt")


def test_every_rank_sees_every_slice_in_colour_or_grey(pictures: Path, tmp_path: Path) -> None:
    for name in ("3.png", "4.png"):
        (pictures / name).unlink()
    whole = read_slices(pictures, 64)
    expected = torch.stack([whole.take([number])[0].expand(3, -1, -1) for number in (2, 0, 1, 2, 1)])
    assert run_in_group(4, functools.partial(slices_in_a_group, pictures, tmp_path)) == [0] * 4
    for rank in range(4):
        found, digest = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(found, expected) and digest == whole.digest()


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
    monkeypatch.setattr("dino_uad.distill.command.DinoBackbone", lambda *_, **__: teacher())
    options = {"blocks": BLOCKS, "image_size": 28, "steps": 2, "batch_size": 4, "device": "cpu"}
    path = distill(str(pictures), str(tmp_path / "out"), "student", "teacher", **options)
    image = torch.rand(2, 1, 28, 42)
    found, cls = DinoBackbone("student", layers=[0], final_norm=False, weights=path)(image)
    assert (found.shape, cls.shape) == ((2, 24, 2, 3), (2, 24))
    expected, _ = DinoBackbone("teacher", layers=[0], final_norm=False, weights="random")(image)
    assert float((found - expected).norm() / expected.norm()) < 0.02, "5.5 bits"


class Begun(Exception):
    """The training would begin."""


def test_a_process_of_several_uses_its_own_gpu(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("dino_uad.distill.command.DinoBackbone", lambda *_, **__: Mock(to=places.append))
    monkeypatch.setattr("dino_uad.distill.command.read_slices", lambda folder, device: places.append(device))
    monkeypatch.setattr("dino_uad.distill.command.Trainer", Mock(side_effect=Begun))
    for asked in (None, "cuda"):
        with pytest.raises(Begun):
            distill(str(pictures), str(tmp_path / "out"), device=asked)
    assert places == [torch.device("cuda", 1)] * 4, "of the teacher and of the images, each time"


def test_the_same_weights_give_the_same_file(trainer, tmp_path: Path) -> None:
    state = trainer().student()
    for name in ("a", "b"):
        write_student(dict(reversed(state.items())) if name == "b" else state, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert read_checkpoint(tmp_path / "a.safetensors").keys() == state.keys()


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        find_images(tmp_path / "missing")
