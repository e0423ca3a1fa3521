"""Overrides and config values: each wrong one names its key, what was found and what was expected."""

import json
import re

import pytest
from monai.bundle import ConfigParser

from dino_uad.errors import explain
from dino_uad.overrides import check_overrides
from workflows import BUNDLES, run

PROGRAM = "/site-packages/monai/bundle/__main__.py"

OVERRIDES = {
    ("--max_epochs", "abc"): r"--max_epochs: found 'abc', expected a whole number such as 40",
    ("--max_epoch", "5"): r"--max_epoch: the config has no max_epoch; did you mean --max_epochs\?",
    ("--network_def#backbone#arhc", "x"): r"no network_def#backbone#arhc; did you mean --network_def#backbone#arch\?",
    ("--network_def#head#n_component", "9"): r"did you mean --network_def#head#n_components\?",
    ("--network_def#head#shots", "1"): r"no network_def#head#shots; Expected one of embed_dim, n_components",
    ("--slices#strid=2",): r"did you mean --slices#stride\? Expected one of min_foreground, preset, stride",
    ("--image_size", "50"): r"--image_size: found 50, expected a list such as \[448, 448\]",
    ("--debug", "yes"): r"--debug: found 'yes', expected True or False",
    ("--seed=1.5",): r"--seed: found 1\.5, expected a whole number such as 0",
    ("--train#preprocessing#transforms#9", "x"): r"no train#preprocessing#transforms#9; Expected an index of the list",
    ("--train#handlers#0#sed", "1"): r"did you mean --train#handlers#0#seed\?",
    ("--intensity", "auto"): r"--intensity: found 'auto', expected a dictionary",
    ("--intensity", "None"): r"--intensity: found None, expected a dictionary",
    ("--axcodes", "None"): r"--axcodes: found None, expected text such as 'PLS'",
    ("--image_size=None",): r"--image_size: found None, expected a list such as \[448, 448\]",
    ("--ckpt_dir=",): r"--ckpt_dir: found '', expected a path",
    ("--dataset_dir", ""): r"--dataset_dir: found '', expected a path",
    ("--device", "None"): r"--device: found None; leave the option out",
    ("--train", "None"): r"--train: found None, expected a dictionary",
}
ALLOWED = [
    ("--max_epochs=3", "--image_size", "[56,56]", "--debug"),
    ("--network_def#backbone#weights", "random", "--device", "cpu"),
    ("--intensity#window", "[-160,240]", "--tracking", "mlflow", "--tracking_uri", "x"),
    ("--intensity#window", "None", "--network_def#head#n_components=None", "--logging_file", "None"),
    ("--network_def#head#step_size", "1", "--seed", "$1+1", "--train_data", "@val_data"),
]


def check(*tokens):
    files = str([str(BUNDLES / "dpmm/configs/train.json")])
    check_overrides([PROGRAM, "run", "--config_file", files, "--bundle_root", "x", *tokens])


@pytest.mark.parametrize("tokens", OVERRIDES)
def test_bad_override(tokens):
    with pytest.raises(ValueError, match=OVERRIDES[tokens]):
        check(*tokens)


@pytest.mark.parametrize("tokens", ALLOWED)
def test_good_overrides(tokens):
    check(*tokens)


def test_what_a_component_computes_may_be_given_as_a_value():
    files = [str(BUNDLES / f"dpmm/configs/{name}.json") for name in ("train", "multi_gpu_train")]
    check_overrides([PROGRAM, "run", "--config_file", str(files), "--device", "cpu", "--num_workers", "2"])


@pytest.mark.parametrize("beside", ["config_file", "dataset_dir"])
def test_arguments_in_a_file_are_the_command_lines(tmp_path, beside):
    """MONAI's ``--args_file``, with the config's name in it or on the command line."""
    arguments = {"config_file": str(BUNDLES / "dpmm/configs/train.json"), "dataset_dir": "x", "seed": 2}
    words = [PROGRAM, "run", "--args_file", str(tmp_path / "args.json"), f"--{beside}", arguments.pop(beside)]

    def check_with(**more):
        (tmp_path / "args.json").write_text(json.dumps(arguments | more))
        check_overrides([*words, "--image_size", "[56,56]", "--val_interval", "2"])

    check_with()
    check_with(val_interval="what the command line replaces")
    with pytest.raises(ValueError, match=r"did you mean --max_epochs\?"):
        check_with(max_epoch=3)
    with pytest.raises(ValueError, match=r"--seed: found 'no', expected a whole number"):
        check_with(seed="no")


def test_other_programs_are_not_looked_at():
    check_overrides(["pytest", "run", "--max_epoch", "5"])


# (bundle, key): (value, message)
VALUES = {
    ("dpmm", "network_def#backbone#arch", "dinov9"): r"unknown backbone 'dinov9'; known: dinov2_vits14",
    ("dpmm", "network_def#backbone#layers", (99,)): r"blocks 0 to .* got layers=\[99\]",
    ("dpmm", "network_def#backbone#layers", 5): r"#layers: found 5, expected a list of whole numbers",
    ("dpmm", "network_def#backbone#layers", ("a",)): r"#layers: found \['a'\], expected a list of whole numbers",
    ("dpmm", "network_def#backbone#precision", "int4"): r"unknown precision 'int4'; known: float32",
    ("dpmm", "image_size", (50, 50)): r"image_size \[50, 50\] is not a multiple of the 14 px patches.*use for example",
    ("dpmm", "image_size", (56,)): r"image size is \[56\]; expected height and width, two",
    ("dpmm", "network_def#head#n_components", 0): r"n_components is 0; expected a whole number of at least 2",
    ("dpmm", "network_def#head#step_size", 2): r"step_size is 2; expected a number in \(0, 1\]",
    ("dpmm", "network_def#head#n_components", 10**8): r"n_components is 100000000; expected less, as it takes \d+ GB",
    ("dpmm", "network_def#smoothing_sigma", 1e9): r"smoothing_sigma is 1000000000.0; expected a number in \[0, 56\]",
    ("dpmm", "network_def#dropout", 1): r"dropout is 1; expected a number in \[0, 1\)",
    ("dpmm", "train#dataset#held_out", 1e9): r"held_out is 1000000000.0; expected a number in \[0, 1\)",
    ("dpmm", "network_def#head#covariance", "x"): r"covariance is 'x'; expected one of diag",
    ("dpmm", "network_def#head#score_type", "x"): r"score_type is 'x'; expected one of cosine",
    ("dpmm", "max_epochs", 0): r"max_epochs is 0; expected a whole number of at least 1",
    ("dpmm", "train#trainer#max_epochs", "many"): r"#trainer#max_epochs: found 'many', expected a whole number",
    ("dpmm", "val_interval", 0): r"val_interval is 0; expected a whole number of at least 1",
    ("dpmm", "train#dataloader#batch_size", 0): r"batch_size is 0; expected a whole number of at least 1",
    ("dpmm", "num_workers", -1): r"num_workers is -1; expected a whole number of at least 0",
    ("dpmm", "device", "gpu7"): r"device is 'gpu7'; expected cpu, cuda, cuda:1",
    ("dpmm", "device", ""): r"device is ''; expected cpu",
    ("dpmm", "axcodes", "XYZ"): r"axcodes is 'XYZ'; expected one letter each of LR, AP and IS",
    ("dpmm", "on_error", "x"): r"on_error is 'x'; expected one of raise, skip",
    ("dpmm", "seed", -1): r"seed is -1; expected a whole number of at least 0",
    ("dpmm", "intensity#mode", "x"): r"mode is 'x'; expected one of auto, window, range",
    ("dpmm", "slices#preset", "x"): r"preset is 'x'; expected one of",
    ("dpmm", "slices#min_foreground", "a"): r"#min_foreground: found 'a', expected a number",
    ("dpmm", "slices#min_foreground", 2): r"min_foreground is 2; expected a number in \[0, 1\]",
    ("dpmm", "slices#stride", 0): r"stride is 0; expected a whole number of at least 1",
    ("dpmm", "train_data#split", "x"): r"split is 'x'; expected one of train, valid, test, all",
    ("dpmm", "max_epoch", 5): r"max_epoch is 5, but nothing in the config reads max_epoch; did you mean max_epochs\?",
    ("dpmm", "slices#strid", 2): r"slices#strid is 2, but nothing .* did you mean slices#stride\?",
    ("dpmm", "ckpt_dir", 5): r"--ckpt_dir: found 5, expected a path",
    ("dpmm", "dataset_dir", "/absent"): r"/absent: no such folder\. Give the data set's folder as dataset_dir",
    ("spatial_ar", "network_def#head#direction", "x"): r"#direction: found 'x', expected one of forward",
    ("spatial_ar", "network_def#head#dilations", (0,)): r"dilations is 0; expected a whole number of at least 1",
    ("spatial_ar", "network_def#head#dilations", ()): r"dilations is \[\]; expected one for each layer",
    ("spatial_ar", "network_def#head#hidden", 0): r"hidden is 0; expected a whole number of at least 1",
    ("spatial_ar", "train#optimizer#lr", -1): r"#lr is -1; expected a number in \(0, 1\]",
    ("spatial_ar", "train#prepare_batch#noise_scale", -1): r"noise_scale is -1; expected a number of at least 0",
    ("spatial_ar", "learning_rate", 0): r"--learning_rate is 0; expected a number in \(0, 1\]",
    ("spatial_ar", "patience", 0): r"--patience is 0; expected a whole number of at least 1",
    ("spatial_ar", "network_def#head#hidden", 10**7): r"hidden is 10000000; expected less, as it takes \d+ GB or more",
    ("spatial_ar", "train#optimizer#weight_decay", -1): r"torch.optim.AdamW\(.*lr.*\): Invalid weight_decay value: -1",
    ("spatial_ar", "learning_rate", None): r"learning_rate: found None, expected a number",
    ("spatial_ar", "patience", "a"): r"patience: found 'a', expected a whole number",
    ("dino_ad", "mask_method", "x"): r"--mask_method: found 'x', expected one of nonzero, threshold",
    ("dino_ad", "network_def#head#n_clusters", 0): r"n_clusters is 0; expected a whole number of at least 1",
    ("dino_ad", "network_def#head#normalization", "x"): r"#normalization: found 'x', expected one of minmax",
    ("anomaly_dino", "network_def#head#coreset", 2): r"coreset is 2; expected a number in \(0, 1\]",
    ("anomaly_dino", "network_def#head#shots", 0): r"shots is 0; expected a whole number of at least 1",
}


@pytest.mark.parametrize("case", VALUES, ids=lambda case: "-".join(map(str, case)))
def test_bad_value(case, tmp_path):
    method, key, value = case
    with pytest.raises(Exception) as caught:
        run(method, tmp_path, **{key: list(value) if isinstance(value, tuple) else value})
    message = explain(caught.value)
    assert re.search(f"(?s){VALUES[case]}", message), message
    assert not list(tmp_path.glob("models/*")), "nothing was fitted, nothing may be written"


def test_every_bundle_checks_its_overrides_and_shortens_tracebacks():
    for path in BUNDLES.glob("*/configs/*.json"):
        config = ConfigParser.load_config_file(path)
        if "initialize" in config:
            targets = [step.get("_target_") for step in config["initialize"] if isinstance(step, dict)]
            assert targets[:2] == ["dino_uad.errors.short_tracebacks", "dino_uad.overrides.check_overrides"], path
        # By a name of its own MONAI's handler prints tracebacks past the root's handlers.
        handlers = [part for part in _parts(config) if part.get("_target_") == "StatsHandler"]
        assert all(part["name"] is None for part in handlers), path


def _parts(config):
    if isinstance(config, dict):
        yield config
    for part in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _parts(part)
