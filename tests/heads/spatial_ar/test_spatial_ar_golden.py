"""The published code's predictions, error maps and receptive fields, from its own checkpoints.

Its "bidirectional" and "standard" modes are defects (the outputs see their targets), so that no option offers them; the
same tap convolutions with the reference's taps reproduce them here.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dense_kernels import load_reference
from dino_uad.heads.spatial_ar.causal_conv import TapCNN, past_taps
from dino_uad.heads.spatial_ar.head import SpatialARHead

ALL = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))
TAPS = {
    "causal": (past_taps(3), past_taps(3, centre=True)),
    "bidirectional": (tuple(tap for tap in ALL if tap != (0, 0)), ALL),
    "standard": (ALL, ALL),
}
NAMES = (
    "ar_causal_d1",
    "ar_causal_d4",
    "ar_causal_dmixed",
    "ar_bidirectional_d1",
    "ar_bidirectional_d4",
    "ar_standard_d1",
)


def checkpoint(arrays, prefix):
    return {key[len(prefix) :]: torch.from_numpy(array) for key, array in arrays.items() if key.startswith(prefix)}


def reference_network(arrays, meta):
    channels = [meta["in_channels"], *[meta["hidden_channels"]] * (meta["n_layers"] - 1), meta["in_channels"]]
    network = TapCNN(channels, meta["dilation_schedule"], *TAPS[meta["mode"]])
    load_reference(network, checkpoint(arrays, "sd/"))
    return network


def influence(network, tokens, row, column):
    """``[h,w]`` bool: which input tokens have a gradient to the output at (row, column)."""
    tokens = tokens.clone().requires_grad_()
    network(tokens)[:, row, column].abs().sum().backward()
    return tokens.grad.abs().sum(dim=(0, 3)) > 0


@pytest.mark.parametrize("name", NAMES)
def test_prediction_and_error_map(golden, name):
    arrays, meta = golden(name)
    embeddings = torch.from_numpy(arrays["input"])
    with torch.no_grad():
        prediction = reference_network(arrays, meta)(embeddings.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    error = (prediction - embeddings).square().mean(dim=1, keepdim=True)
    upsampled = F.interpolate(error, size=2 * [meta["up_size"]], mode="bilinear", align_corners=False)
    np.testing.assert_allclose(prediction, arrays["output"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(error[:, 0], arrays["anomaly_map"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(upsampled[:, 0], arrays["anomaly_map_up"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_receptive_field(golden, name):
    arrays, meta = golden(name)
    network = reference_network(arrays, meta)
    tokens = torch.from_numpy(arrays["input"]).permute(0, 2, 3, 1)
    sees_itself = False
    for (row, column), expected in zip(arrays["influence_positions"], arrays["influence"], strict=True):
        found = influence(network, tokens, row, column)
        np.testing.assert_array_equal(found, expected)
        sees_itself |= bool(found[row, column])
    assert sees_itself == meta["output_sees_own_position"]


@pytest.mark.parametrize("name", [name for name in NAMES if "causal" in name])
def test_head_scores_causal_checkpoint(golden, name):
    arrays, meta = golden(name)
    head = SpatialARHead(meta["in_channels"], meta["hidden_channels"], dilations=meta["dilation_schedule"]).eval()
    load_reference(head.passes[0], checkpoint(arrays, "sd/"))
    head.batches_seen.fill_(1)
    with torch.no_grad():
        found = head.score(torch.from_numpy(arrays["input"]))
    np.testing.assert_allclose(found[:, 0], arrays["anomaly_map"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("combine", ["mean", "min"])
def test_head_combines_forward_and_backward_checkpoints(golden, combine):
    arrays, meta = golden("ar_fwdbwd")
    head = SpatialARHead(
        meta["in_channels"],
        meta["hidden_channels"],
        dilations=meta["dilation_schedule"],
        direction="both",
        combine=combine,
    ).eval()
    load_reference(head.passes[0], checkpoint(arrays, "sd_fwd/"))
    load_reference(head.passes[1], checkpoint(arrays, "sd_bwd/"))
    head.batches_seen.fill_(1)
    with torch.no_grad():
        found = head.score(torch.from_numpy(arrays["input"]))
    np.testing.assert_allclose(found[:, 0], arrays[f"map_{combine}"], atol=1e-5, rtol=0)
