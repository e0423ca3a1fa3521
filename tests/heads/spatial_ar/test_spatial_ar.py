"""Spatial AR head: what each output may see, the density, calibration by position, learning, export."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from dino_uad.heads.spatial_ar.head import SpatialARHead

DIRECTIONS = ("forward", "backward", "both", "bidirectional")


def make_head(direction="forward", dilations=(1, 1, 1, 1), embed_dim=3, hidden=16, seed=0, **kwargs):
    torch.manual_seed(seed)
    head = SpatialARHead(embed_dim, hidden, dilations=dilations, direction=direction, **kwargs).eval()
    head.batches_seen.fill_(1)
    return head


def field(height=10, width=12, embed_dim=3, count=2, seed=0):
    return torch.randn(count, embed_dim, height, width, generator=torch.Generator().manual_seed(seed))


def support(head, which, row, column, size):
    """Positions whose embedding has a gradient to prediction ``which`` at (row, column), ``[h,w]`` bool."""
    embeddings = field(*size).requires_grad_()
    predictions = head(embeddings)
    predictions = predictions if isinstance(predictions, tuple) else (predictions,)
    predictions[which][:, :, row, column].abs().sum().backward()
    return embeddings.grad.abs().sum(dim=(0, 1)) > 0


@pytest.mark.parametrize("dilations", [(1, 1, 1, 1), (4, 4, 4, 4), (1, 2, 4, 8)])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_no_output_sees_its_own_token(direction, dilations):
    size = (10, 12)
    head = make_head(direction, dilations)
    for row, column in [(0, 0), (0, 11), (5, 6), (9, 0), (9, 11)]:
        for which, reverse in enumerate({"backward": [1], "both": [0, 1], "bidirectional": [2]}.get(direction, [0])):
            seen = support(head, which, row, column, size).flatten()
            own = row * size[1] + column
            assert not seen[own]
            if reverse == 0:
                assert not seen[own:].any()
            if reverse == 1:
                assert not seen[:own].any()


def test_bidirectional_sees_both_sides():
    seen = support(make_head("bidirectional"), 0, 5, 6, (10, 12)).flatten()
    assert seen[: 5 * 12 + 6].any() and seen[5 * 12 + 7 :].any()


@pytest.mark.parametrize(("dilations", "expected"), [((4, 4, 4, 4), 35), ((1, 2, 4, 8), 351)])
def test_receptive_field_of_574_past_tokens(dilations, expected):
    row, column = 20, 14
    assert row * 28 + column == 574
    assert support(make_head(dilations=dilations), 0, row, column, (28, 28)).sum() == expected


def test_log_likelihood_is_scipys():
    head, embeddings = make_head(), field()
    mask = torch.rand(2, 1, 10, 12, generator=torch.Generator().manual_seed(1)) < 0.4
    with torch.no_grad():
        prediction, found = head(embeddings), head.log_likelihood(embeddings, None, mask)
    density = scipy.stats.norm.logpdf(embeddings.double(), loc=prediction.double()).sum(axis=1, keepdims=True)
    expected = [values[valid].mean() for values, valid in zip(density, mask.numpy(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_log_likelihood_of_both_directions_is_their_mean():
    head, embeddings = make_head("both"), field()
    with torch.no_grad():
        predictions = head(embeddings)
        expected = [scipy.stats.norm.logpdf(embeddings, loc=p).sum(axis=1).mean(axis=(1, 2)) for p in predictions]
        np.testing.assert_allclose(head.log_likelihood(embeddings), np.mean(expected, axis=0), rtol=1e-5)


def test_position_calibration_flattens_the_corner():
    """A smooth field is predictable except at the first token, which has no context."""
    normal = field(1, 1, count=90).expand(-1, -1, 6, 6) + 0.1 * field(6, 6, count=90, seed=1)
    head = make_head(dilations=(1,))
    train(head, normal[:30], steps=60)
    with torch.no_grad():
        raw = head.score(normal[60:]).mean(dim=(0, 1))
        for shard in normal[30:60].split([20, 0, 10]):
            head.calibrate_batch(shard)
        head.end_calibration()
        calibrated = head.score(normal[60:]).mean(dim=(0, 1))
    assert raw[0, 0] > 5 * raw.median()
    assert 0.4 < calibrated[0, 0] / calibrated.median() < 2.5
    assert calibrated.mean().item() == pytest.approx(raw.mean().item(), rel=0.5)


def test_position_calibration_leaves_easy_positions_alone():
    head, embeddings = make_head(), field(6, 6)
    with torch.no_grad():
        raw = head.score(embeddings)
        head.position_error = torch.ones(1, 6, 6)
        head.position_error[0, 0] = 5.0  # the mean is 10/6
        scores = head.score(embeddings)
    torch.testing.assert_close(scores[:, :, 1:], raw[:, :, 1:])
    torch.testing.assert_close(scores[:, :, 0], raw[:, :, 0] / 3)


def test_calibration_ignores_masked_patches_and_survives_the_state_dict():
    head, embeddings = make_head(), field()
    mask = torch.ones(2, 1, 10, 12, dtype=torch.bool)
    mask[:, :, -1, -1] = False  # the last token: no other one is predicted from it
    corrupted = embeddings.clone()
    corrupted[:, :, -1, -1] = 1e4
    found = []
    for batch in (embeddings, corrupted):
        with torch.inference_mode():
            head.calibrate_batch(batch, None, mask)
            head.end_calibration()
        found.append(head.position_error.clone())
    torch.testing.assert_close(*found)
    assert found[0][0, -1, -1].item() == pytest.approx(found[0].flatten()[:-1].mean().item(), rel=1e-4)
    assert not head.position_error.is_inference()

    copy = make_head(seed=1)
    copy.load_state_dict(head.state_dict())
    torch.testing.assert_close(copy.score(embeddings), head.score(embeddings))
    with pytest.raises(ValueError, match=r"\(9, 12\).*\(10, 12\)"):
        copy.score(embeddings[:, :, :9])


def train(head, embeddings, steps):
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    head.train()
    for _ in range(steps):
        predictions = head(embeddings)
        predictions = predictions if isinstance(predictions, tuple) else (predictions,)
        loss = sum((p - embeddings).square().mean() for p in predictions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_learns_an_autoregressive_field(direction):
    """Each token is the mean of its upper and left neighbour plus noise of variance 0.01: nothing predicts better."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.zeros(40, 2, 9, 9)
    for row in range(9):
        for column in range(9):
            noise = torch.randn(40, 2, generator=generator)
            if row and column:
                past = tokens[:, :, row - 1, column] + tokens[:, :, row, column - 1]
                tokens[:, :, row, column] = 0.5 * past + 0.1 * noise
            else:
                tokens[:, :, row, column] = noise
    head = make_head(direction, dilations=(1,), embed_dim=2)
    train(head, tokens[:20], steps=80)
    with torch.no_grad():
        inner = head.score(tokens[20:])[:, :, 2:-2, 2:-2].mean()
    constant = tokens[20:, :, 2:-2, 2:-2].var(dim=0).mean()
    assert inner < 0.2 * constant
    if direction == "forward":
        assert inner > 0.0095


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_half_precision_and_empty_batches(direction):
    head, embeddings = make_head(direction), field()
    score = head.score(embeddings.half())
    assert score.dtype == torch.float32 and score.shape == (2, 1, 10, 12)
    torch.testing.assert_close(score, head.score(embeddings.half().float()))
    assert head.score(embeddings[:0]).shape == (0, 1, 10, 12)
    assert head.log_likelihood(embeddings[:0].half()).shape == (0,)


def test_unfitted_head_refuses_to_score_until_it_has_trained():
    head = SpatialARHead(3, 8)
    assert not head.fitted
    with pytest.raises(RuntimeError, match="not fitted"):
        head.score(field())
    head.train()(field())
    assert head.fitted
    copy = SpatialARHead(3, 8)
    copy.load_state_dict(head.state_dict())
    assert copy.fitted


@pytest.mark.parametrize(
    ("name", "value"), [("direction", "up"), ("combine", "max"), ("dilations", (0,)), ("kernel_size", 4)]
)
def test_wrong_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=name.rstrip("s")):
        SpatialARHead(3, **{name: value})


@pytest.mark.parametrize("other", [{"dilations": (4, 4, 4, 4)}, {"direction": "backward"}])
def test_weights_of_another_structure_with_the_same_shapes_are_refused(other):
    with pytest.raises(RuntimeError, match=r"direction 'forward', kernel_size 3, dilations \[1, 1, 1, 1\]"):
        make_head(**other).load_state_dict(make_head().state_dict())


class Scorer(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, embeddings):
        return self.head.score(embeddings)


@pytest.mark.parametrize("direction", ["both", "bidirectional"])
def test_traced_and_exported_scores_are_the_same(direction):
    head, embeddings = make_head(direction, (1, 2, 4, 8)), field()
    with torch.no_grad():
        head.calibrate_batch(embeddings)
        head.end_calibration()
        expected = head.score(embeddings)
        traced = torch.jit.trace(Scorer(head), (embeddings,))
        exported = torch.export.export(Scorer(head), (embeddings,)).module()
        torch.testing.assert_close(traced(embeddings), expected)
        torch.testing.assert_close(exported(embeddings), expected)


def test_masked_patches_count_for_nothing_when_none_is_left():
    head = make_head()
    nothing = torch.zeros(2, 1, 10, 12, dtype=torch.bool)
    assert head.log_likelihood(field(), None, nothing).tolist() == [0, 0]
    head.calibrate_batch(field(), None, nothing)
    with pytest.raises(RuntimeError, match="no valid patch"):
        head.end_calibration()
    with pytest.raises(RuntimeError, match="without calibrate_batch"):
        make_head().end_calibration()


def test_likelihood_of_a_perfect_prediction():
    head = make_head()
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    found = head.log_likelihood(torch.zeros(1, 3, 4, 4))
    assert found.item() == pytest.approx(-1.5 * math.log(2 * math.pi), rel=1e-6)


def test_standardised_channels_have_the_statistics_of_the_valid_patches():
    head, embeddings = make_head(standardize=True), 50 * field(count=6) + 3
    mask = torch.rand(6, 1, *embeddings.shape[-2:], generator=torch.Generator().manual_seed(0)) < 0.7
    for part in (slice(0, 4), slice(4, 4), slice(4, 6)):
        head.scale.measure(embeddings[part], mask[part])
    head.scale.finish()
    rows = embeddings.movedim(1, -1)[mask[:, 0]].numpy()
    np.testing.assert_allclose(head.scale.mean.flatten(), rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(head.scale.std.flatten(), rows.std(axis=0), rtol=1e-5)
    with pytest.raises(RuntimeError, match="no training batch"):
        make_head(standardize=True).scale.finish()


def test_density_of_standardised_channels_is_that_of_the_embeddings():
    head, embeddings = make_head(standardize=True), 50 * field() + 3
    head.scale.measure(embeddings)
    head.scale.finish()
    with torch.no_grad():
        mean = head(head.standardized(embeddings)) * head.scale.std + head.scale.mean
        expected = scipy.stats.norm.logpdf(embeddings, loc=mean, scale=head.scale.std).sum(axis=1).mean(axis=(1, 2))
        np.testing.assert_allclose(head.log_likelihood(embeddings), expected, rtol=1e-5)
