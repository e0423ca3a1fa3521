"""Input noise of the spatial AR training: its size, how often it comes, and that it can be repeated."""

import pytest
import torch

from dino_uad import parallel
from dino_uad.engines.prepare_embedding import PrepareEmbedding
from dino_uad.heads import GradientHead


def batch(count=4, seed=0, **extra):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([0.1, 1.0, 10.0]).view(1, 3, 1, 1)
    embedding = (scale * torch.randn(count, 3, 32, 32, generator=generator)).half()
    return {"embedding": embedding, "cls": torch.zeros(count, 3), **extra}


def prepared(**arguments):
    """As a trainer attaches it to a head that standardises nothing."""
    prepare = PrepareEmbedding(**arguments)
    prepare.head = GradientHead(3)
    return prepare


def noise_at(prepare, iteration, data):
    prepare.iteration = iteration
    noisy, (clean, _) = prepare(data, "cpu")
    return noisy - clean


def test_noise_is_a_fraction_of_the_spatial_deviation_of_each_channel():
    data = batch()
    noise = noise_at(prepared(noise_scale=0.03, noise_probability=1), 1, data)
    expected = 0.03 * data["embedding"].float().std(dim=(2, 3))
    torch.testing.assert_close(noise.std(dim=(2, 3)), expected, rtol=0.1, atol=0)
    assert (noise.mean(dim=(2, 3)).abs() < 5 * expected / 32).all()


def test_a_fifth_of_the_batches_has_noise_and_targets_are_always_clean():
    prepare, data = prepared(), batch(1)
    noisy = 0
    for iteration in range(1, 501):
        prepare.iteration = iteration
        source, (clean, mask) = prepare(data, "cpu")
        torch.testing.assert_close(clean, data["embedding"].float(), rtol=0, atol=0)
        noisy += bool((source != clean).any())
    assert mask.all() and mask.shape == (1, 1, 32, 32)
    assert 70 <= noisy <= 130  # 100 expected, standard deviation 9


def test_noise_depends_on_seed_and_iteration_alone():
    data = batch()
    prepare = prepared(noise_probability=1, seed=1)
    first = noise_at(prepare, 7, data)
    torch.randn(10)  # the global generator has no part in it
    assert torch.equal(noise_at(prepared(noise_probability=1, seed=1), 7, data), first)
    assert not torch.equal(noise_at(prepare, 8, data), first)
    assert not torch.equal(noise_at(prepared(noise_probability=1, seed=2), 7, data), first)
    assert not torch.equal(first[0] / first[0].std(), first[1] / first[1].std())


def test_shards_of_a_batch_see_the_noise_of_the_whole(monkeypatch):
    data = batch(5)
    whole = noise_at(prepared(noise_probability=1), 3, data)
    shares = [3, 0, 2]
    monkeypatch.setattr(parallel, "counts", lambda count, device: shares)
    for rank, rows in enumerate(torch.arange(5).split(shares)):
        monkeypatch.setattr(parallel.division, "rank", lambda rank=rank: rank)
        shard = {key: value[rows] for key, value in data.items()}
        torch.testing.assert_close(noise_at(prepared(noise_probability=1), 3, shard), whole[rows])


def test_foreground_is_the_mask_of_the_target():
    foreground = torch.rand(4, 1, 32, 32) < 0.5
    _, (_, mask) = prepared()(batch(foreground=foreground), "cpu")
    assert torch.equal(mask, foreground)


@pytest.mark.parametrize("arguments", [{"noise_scale": -1}, {"noise_probability": 1.5}])
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        PrepareEmbedding(**arguments)
