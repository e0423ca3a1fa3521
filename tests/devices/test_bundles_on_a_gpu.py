"""All four bundles on the pretended GPU: they train, evaluate and infer, alone and in two ranks under NCCL's rule."""

from contextlib import contextmanager
from functools import partial
from unittest import mock

import pytest
import torch

from devices.absent_gpu import absent_gpu
from dino_uad.detector import AnomalyDetector
from workflows import METHODS, overrides, run, run_in_group, start

ON_THE_GPU = {"device": "$torch.device('cuda:0')"}
FEWER = {f"validate#additional_metrics#{name}_interval#replicates": 20 for name in ("pixel", "image")}
EVALUATION = {**ON_THE_GPU, **FEWER, "files_per_batch": 4}


@contextmanager
def model_read_once():
    """The model is loaded into one network; its file is mapped, on the host, by whoever wants a tensor of it."""
    read, loaded = mock.Mock(wraps=torch.load), []
    load = AnomalyDetector.load_state_dict
    counted = lambda network, state: (loaded.append(network), load(network, state))[1]  # noqa: E731
    with mock.patch.object(torch, "load", read), mock.patch.object(AnomalyDetector, "load_state_dict", counted):
        yield
    assert len(loaded) == 1
    assert all(call.kwargs.get("mmap") and call.kwargs["map_location"] == "cpu" for call in read.call_args_list)


def fit_evaluate_and_infer(method, folder):
    torch.use_deterministic_algorithms(True)  # as the page on determinism recommends
    with absent_gpu():
        run(method, folder, **ON_THE_GPU)
        with model_read_once():
            run(method, folder, "inference", **ON_THE_GPU)
    with absent_gpu() as gpu, model_read_once():
        run(method, folder, "evaluate", **EVALUATION)
    for path in (folder / "data/test").rglob("?1.png"):
        path.unlink()
    with absent_gpu() as half:
        run(method, folder, "evaluate", **EVALUATION)
    # Four images in one batch take as many copies to the device as two; the report shows some of them.
    more = {crossing: count for crossing, count in (gpu.crossings - half.crossings).items() if "GPU" in crossing[0]}
    assert not [line for _, line in more if not line.startswith("report/")], more


@pytest.mark.parametrize("method", METHODS)
def test_train_evaluate_and_infer_with_deterministic_algorithms_and_no_copy_an_image(method, tmp_path):
    process = start(fit_evaluate_and_infer, method, tmp_path)
    process.join()
    assert process.exitcode == 0


def on_a_gpu_in_a_group(method, folder, kind, **more):
    with absent_gpu(nccl=True):
        run(method, folder, kind, **ON_THE_GPU, **more)


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_hand_nccl_what_it_takes(method, tmp_path):
    overrides(method, tmp_path)
    divided = {"network_def#head#sharded": True} if method == "anomaly_dino" else {}
    for kind, more in {"distributed": {}, "distributed evaluate": FEWER | {"files_per_batch": 4}}.items():
        assert run_in_group(2, partial(on_a_gpu_in_a_group, method, tmp_path, kind, **divided, **more)) == [0, 0], kind
