"""No head gives NaN or infinity for embeddings that no data set should have but some have; long runs do not drift."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dino_uad.engines.embedding_trainer import PredictionLoss
from dino_uad.heads import image_score
from dino_uad.heads.anomaly_dino.head import AnomalyDinoHead
from dino_uad.heads.dino_ad.head import DinoADHead
from dino_uad.heads.dpmm.head import DPMMHead
from dino_uad.heads.spatial_ar.head import SpatialARHead

CHANNELS = 6
HEADS = {
    "dpmm cosine": lambda: DPMMHead(CHANNELS, 40),
    "dpmm likelihood": lambda: DPMMHead(CHANNELS, 40, normalize=False, score_type="likelihood"),
    "dpmm mahalanobis, full": lambda: DPMMHead(CHANNELS, 40, "full", normalize=False, score_type="mahalanobis"),
    "spatial_ar": lambda: SpatialARHead(CHANNELS, 8, dilations=(1, 2)),
    "spatial_ar both": lambda: SpatialARHead(CHANNELS, 8, dilations=(1,), direction="both", combine="min"),
    "dino_ad calibrated": lambda: DinoADHead(CHANNELS, 5, normalization="calibrated"),
    "dino_ad minmax": lambda: DinoADHead(CHANNELS, 5, normalization="minmax"),
    "anomaly_dino": lambda: AnomalyDinoHead(CHANNELS, k_neighbors=3),
    "anomaly_dino coreset, foreground": lambda: AnomalyDinoHead(CHANNELS, coreset=0.3, foreground="pca"),
}


def embeddings(kind, images, side, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(images, CHANNELS, side, side, generator=generator)
    if kind == "one patch repeated":
        rows = rows[:1, :, :1, :1].expand_as(rows)
    elif kind == "two patches repeated":
        rows = torch.where(torch.rand(rows[:, :1].shape, generator=generator) < 0.5, rows[:1, :, :1, :1], 1.0)
    elif kind == "zero":
        rows = torch.zeros_like(rows)
    elif kind == "one channel":
        rows = rows * torch.eye(CHANNELS)[0].view(1, -1, 1, 1)
    return (rows * scale).half()


def fit(head, batch, cls):
    if isinstance(head, SpatialARHead):
        optimizer, loss = torch.optim.AdamW(head.parameters(), lr=1e-2), PredictionLoss()
        mask = torch.ones_like(batch[:, :1], dtype=torch.bool)
        for _ in range(3):
            optimizer.zero_grad()
            loss(head(batch), (batch.float(), mask)).backward()
            optimizer.step()
        head.eval()
    else:
        for _ in range(1 if head.single_pass else 4):
            head.fit_batch(batch, cls)
            head.end_epoch()
    head.calibrate_batch(batch, cls)
    head.end_calibration()


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=12)
@given(
    kind=st.sampled_from(["random", "one patch repeated", "two patches repeated", "zero", "one channel"]),
    images=st.integers(1, 3),
    side=st.integers(1, 4),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_finite_for_degenerate_embeddings(name, kind, images, side, scale, seed):
    torch.manual_seed(seed)
    batch = embeddings(kind, images, side, scale, seed)
    cls = batch.float().mean(dim=(2, 3))
    head = HEADS[name]()
    fit(head, batch, cls)
    assert all(torch.isfinite(value).all() for value in head.state_dict().values() if value.is_floating_point())
    queries = torch.cat([batch, embeddings("random", 1, side, scale, seed + 1), batch[:1] * 0])
    tokens = torch.cat([cls, cls.new_ones(1, CHANNELS), cls.new_zeros(1, CHANNELS)])
    with torch.no_grad():
        scores = head.score(queries, tokens)
        assert scores.dtype == torch.float32 and scores.shape == (len(queries), 1, side, side)
        assert torch.isfinite(scores).all() and torch.isfinite(image_score(scores)).all()
        assert torch.isfinite(head.log_likelihood(queries, tokens)).all()


@pytest.mark.slow
def test_twenty_thousand_steps_do_not_drift():
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[-4.0, 0, 0], [4, 0, 0], [0, 4, 0]])
    rows = (means.repeat(8, 1) + 0.3 * torch.randn(24, 3, generator=generator)).T.reshape(1, 3, 4, 6)
    single, double = (
        DPMMHead(3, 6, normalize=False, reg_covar=1e-3, step_size=0.05).to(kind) for kind in (torch.float, torch.double)
    )
    for _ in range(20_000):
        single.fit_batch(rows)
    for _ in range(2_000):  # where it stays from then on
        double.fit_batch(rows)
    torch.testing.assert_close(single.weights().double(), double.weights(), atol=1e-4, rtol=0)
    expected, found = double.log_likelihood(rows), single.log_likelihood(rows).double()
    torch.testing.assert_close(found, expected.double(), atol=1e-3, rtol=0)
