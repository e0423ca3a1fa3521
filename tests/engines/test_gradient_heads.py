"""A head of another, trained by gradients: it learns from what it will score; what is no such head is told."""

import pytest
import torch
from torch import Tensor, nn

from dino_uad.engines import EmbeddingTrainer, PredictionLoss, PrepareEmbedding
from dino_uad.heads import GradientHead, MeanDistanceHead
from dino_uad.heads.neighbourhood import neighbourhood_mean

SIDE = 3


class Autoencoder(GradientHead):
    """One linear layer forth and back, which keeps what it was given."""

    def __init__(self, embed_dim: int, standardize: bool = False, averages: bool = True) -> None:
        super().__init__(embed_dim, standardize)
        self.averages_embeddings = averages
        self.layers = nn.Sequential(nn.Conv2d(embed_dim, 2, 1), nn.Conv2d(2, embed_dim, 1))
        self.given: list[Tensor] = []

    def predict(self, embeddings: Tensor) -> Tensor:
        self.given.append(embeddings)
        return self.layers(embeddings)


def batches() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"embedding": (2 + 5 * torch.randn(3, 4, 6, 5, generator=generator)).half(), "cls": torch.zeros(3, 4)}
        for _ in range(2)
    ]


def trained(head: nn.Module, loader: list[dict[str, Tensor]], epochs: int = 1) -> nn.Module:
    EmbeddingTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=head,
        optimizer=torch.optim.AdamW(head.parameters(), lr=1e-2) if list(head.parameters()) else None,
        loss_function=PredictionLoss(),
        prepare_batch=PrepareEmbedding(noise_probability=0),
    ).run()
    return head


@pytest.mark.parametrize("averages", [True, False])
def test_it_is_trained_on_what_it_will_score(averages):
    head, loader = Autoencoder(4, averages=averages), batches()
    head.neighbourhood = SIDE  # the detector's, which sets it
    trained(head, loader)
    for given, batch in zip(head.given, loader, strict=True):
        expected = neighbourhood_mean(batch["embedding"], SIDE) if averages else batch["embedding"].float()
        torch.testing.assert_close(given, expected.float(), rtol=0, atol=0)


def test_channels_are_standardised_by_what_it_will_score():
    head, loader = Autoencoder(4, standardize=True), batches()
    head.neighbourhood = SIDE
    trained(head, loader)
    given = torch.cat(head.given)
    torch.testing.assert_close(given.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(given.std(dim=(0, 2, 3), correction=0), torch.ones(4), rtol=0, atol=1e-4)


def test_training_counts_and_scoring_does_not():
    head, loader = Autoencoder(4), batches()
    assert not head.fitted
    trained(head, loader, epochs=3)
    assert head.fitted and int(head.batches_seen) == 6
    head.eval()(torch.zeros(1, 4, 6, 5))
    assert int(head.batches_seen) == 6


def test_a_head_without_gradients_is_told_where_it_belongs():
    with pytest.raises(ValueError, match=r"MeanDistanceHead; expected a GradientHead .*HeadTrainer"):
        trained(MeanDistanceHead(4), batches())
