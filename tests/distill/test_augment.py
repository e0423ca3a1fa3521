"""Image and cached features stay on the same grid under augmentation."""

import torch

from dino_uad.distill.augment import augment, change_intensity, crop


def _pair(patch: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose every patch is constant, and "features" that are exactly that constant."""
    embedding = torch.rand(3, 1, 8, 10, generator=torch.Generator().manual_seed(0))
    image = embedding.repeat_interleave(patch, 2).repeat_interleave(patch, 3).expand(-1, 3, -1, -1)
    return image, embedding


def _features_of(image: torch.Tensor, patch: int = 7) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(image[:, :1], patch)


def test_crops_move_features_with_their_patches() -> None:
    image, embedding = _pair()
    generator = torch.Generator().manual_seed(1)
    shapes = set()
    for _ in range(20):
        cropped, target = crop(image, embedding, generator)
        assert torch.allclose(_features_of(cropped), target, atol=1e-6)
        shapes.add(tuple(target.shape[-2:]))
    assert len(shapes) > 5
    assert min(rows for rows, _ in shapes) >= 4
    assert min(columns for _, columns in shapes) >= 5


def test_intensity_changes_are_small_and_stay_in_range() -> None:
    image, _ = _pair()
    changed = change_intensity(image, torch.Generator().manual_seed(2))
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert not torch.equal(changed, image)
    assert float((changed - image).abs().mean()) < 0.1


def test_augmentation_depends_on_the_generator_alone() -> None:
    first, second = (augment(*_pair(), torch.Generator().manual_seed(3), 0.5) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
