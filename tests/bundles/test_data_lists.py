"""Training, validation and test lists of one run are drawn by the same settings, or patients stand in two of them."""

import inspect
import json
from pathlib import Path

import pytest

from dino_uad.data import datalist

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json"))
OWN = {"dataset_dir", "split", "normal_only", "on_error", "anonymous_names"}
"""Arguments in which the lists differ, or which do not decide what is in them."""


@pytest.mark.parametrize("bundle", NAMES)
def test_every_setting_of_a_data_list_reaches_all_three(bundle):
    configs = BUNDLES / bundle / "configs"
    train, evaluate = (json.loads((configs / name).read_text()) for name in ("train.json", "evaluate.json"))
    defaults = {
        name: argument.default for name, argument in inspect.signature(datalist).parameters.items() if name not in OWN
    }
    assert {name: train["train_data"].get(name, "absent") for name in defaults} == defaults
    shared = {name: f"@train_data#{name}" for name in defaults}
    for others in (train["val_data"], evaluate["test_data"]):
        assert {name: others.get(name, "absent") for name in defaults} == shared
