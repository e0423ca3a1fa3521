"""Gradient training on embeddings: the loss, and that ranks with unequal or empty shares equal one process."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from monai.engines import IterationEvents
from torch import nn

from dino_uad.engines.embedding_trainer import EmbeddingTrainer, PredictionLoss
from dino_uad.engines.prepare_embedding import PrepareEmbedding
from dino_uad.heads.spatial_ar.head import SpatialARHead
from workflows import two_ranks

SHARES = ((3, 2), (2, 0), (0, 4))


def batches(rank=None):
    """Three global batches of 5, 2 and 4 images with masks, or one rank's contiguous share of each."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for shares in SHARES:
        count = sum(shares)
        data = {
            "embedding": torch.randn(count, 4, 6, 5, generator=generator).half(),
            "cls": torch.zeros(count, 4),
            "foreground": torch.rand(count, 1, 6, 5, generator=generator) < 0.6,
        }
        found.append(data if rank is None else {key: value.split(shares)[rank] for key, value in data.items()})
    return found


def fit(loader, direction="both", epochs=2, seed=0, start=None, max_steps=None, amp=False, schedule=None):
    """State dict and loss of each iteration after training with noise; ``start`` is the state to resume from."""
    torch.manual_seed(seed)
    head = SpatialARHead(4, 8, dilations=(1, 2), direction=direction)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    trainer = EmbeddingTrainer(
        device="cpu",
        max_epochs=epochs,
        max_steps=max_steps,
        amp=amp,
        schedule=schedule,
        train_data_loader=loader,
        network=head,
        optimizer=optimizer,
        loss_function=PredictionLoss(),
        prepare_batch=PrepareEmbedding(noise_probability=0.5, seed=3),
    )
    if start is not None:
        head.load_state_dict(start["head"])
        optimizer.load_state_dict(start["optimizer"])
        trainer.state.epoch, trainer.state.iteration = start["epoch"], start["epoch"] * len(loader)
    losses = []
    trainer.add_event_handler(
        IterationEvents.LOSS_COMPLETED, lambda engine: losses.append(engine.state.output["loss"].item())
    )
    trainer.run()
    return {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epochs, "losses": losses}


def test_a_schedule_is_attached_to_the_trainer():
    attached = []
    fit(batches(), epochs=1, schedule=SimpleNamespace(attach=attached.append))
    assert [type(trainer) for trainer in attached] == [EmbeddingTrainer]


def worker(rank, folder):
    result = fit(batches(rank), seed=rank)  # rank 1 starts elsewhere: rank 0's parameters must win
    torch.save({"head": result["head"], "losses": torch.tensor(result["losses"])}, f"{folder}/{rank}.pt")


def test_two_ranks_with_unequal_shares_equal_one_process(tmp_path):
    two_ranks(worker, str(tmp_path))
    single = fit(batches())
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["losses"], torch.tensor(single["losses"]))
        for key, value in single["head"].items():
            torch.testing.assert_close(found["head"][key], value, rtol=1e-5, atol=1e-5)


def test_resumed_run_is_bit_identical():
    whole = fit(batches(), epochs=3)
    resumed = fit(batches(), epochs=3, start=fit(batches(), epochs=1), seed=9)
    assert resumed["losses"] == whole["losses"][3:]
    assert all(torch.equal(resumed["head"][key], value) for key, value in whole["head"].items())


@pytest.mark.parametrize(("max_steps", "steps"), [(None, 12), (1, 3), (6, 6), (7, 9), (99, 12)])
def test_steps_end_the_fit_with_the_pass_that_it_is_in(max_steps, steps):
    assert len(fit(batches(), epochs=4, max_steps=max_steps)["losses"]) == steps


@pytest.mark.parametrize("max_steps", [0, "many", 2.0, True])
def test_a_number_of_steps_that_is_none(max_steps):
    with pytest.raises(ValueError, match=f"max_steps is {max_steps!r}; expected a whole number of at least 1"):
        fit(batches(), max_steps=max_steps)


def test_bfloat16_on_a_cpu_is_near(recwarn, monkeypatch):
    monkeypatch.setattr("dino_uad.engines.embedding_trainer.half_precision_pays", lambda *of: True)
    half, whole = (fit(batches(), epochs=4, amp=amp)["losses"] for amp in (True, False))
    assert half != whole and half == pytest.approx(whole, rel=0.01)
    assert not [str(warning.message) for warning in recwarn if "CUDA" in str(warning.message)]


def test_a_processor_that_would_emulate_bfloat16_trains_in_float32_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr("dino_uad.engines.embedding_trainer.half_precision_pays", lambda *of: False)
    emulated, whole = (fit(batches(), amp=amp)["losses"] for amp in (True, False))
    assert emulated == whole
    (said,) = (record.getMessage() for record in caplog.records if record.name.endswith("embedding_trainer"))
    assert said == "amp: this processor would only emulate bfloat16, at many times the time: float32 instead"


def test_training_lowers_the_loss():
    losses = fit(batches(), direction="bidirectional", epochs=30)["losses"]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_loss_is_the_mean_square_over_valid_patches():
    clean, prediction = torch.randn(3, 4, 6, 5), torch.randn(3, 4, 6, 5)
    mask = torch.rand(3, 1, 6, 5) < 0.5
    valid = mask.expand_as(clean)
    expected = nn.functional.mse_loss(prediction[valid], clean[valid])
    torch.testing.assert_close(PredictionLoss()(prediction, (clean, mask)), expected)
    pair = PredictionLoss()((prediction, clean), (clean, mask))
    torch.testing.assert_close(pair, expected / 2)


def test_loss_of_an_empty_share_has_zero_gradients():
    head = SpatialARHead(4, 8, dilations=(1,)).train()
    nothing = torch.zeros(0, 4, 6, 5)
    loss = PredictionLoss()(head(nothing), (nothing, torch.ones(0, 1, 6, 5, dtype=torch.bool)))
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad.abs().sum() == 0 for parameter in head.parameters())


def test_distributed_data_parallel_is_refused(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = nn.parallel.DistributedDataParallel(SpatialARHead(4, 8))
        with pytest.raises(ValueError, match="without DistributedDataParallel"):
            EmbeddingTrainer(
                device="cpu",
                max_epochs=1,
                train_data_loader=batches(),
                network=network,
                optimizer=torch.optim.AdamW(network.parameters()),
                loss_function=PredictionLoss(),
                prepare_batch=PrepareEmbedding(),
            )
    finally:
        dist.destroy_process_group()
