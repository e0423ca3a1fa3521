"""A config that is about to run from Python, where MONAI adds what it does not know without a word."""

import re

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from dino_uad.whole_config import check_config
from workflows import BUNDLES, METHODS

RUNS = [
    ["train"],
    ["train", "paper"],
    ["train", "multi_gpu_train"],
    ["train", "evaluate"],
    ["train", "evaluate", "multi_gpu_evaluate"],
    ["inference"],
    ["inference", "paper"],
]
# (files, key): (value, message); of the DPMM's bundle
REFUSED = {
    ("train", "max_epoch", 5): "max_epoch is 5, but nothing in the config reads max_epoch; did you mean max_epochs?",
    ("inference", "max_epochs", 5): "max_epochs is 5, but nothing in the config reads max_epochs; Expected one of ",
    ("train", "slices", ()): "--slices: found [], expected a dictionary with preset, stride, min_foreground",
    ("train", "slices", (("strid", 2),)): "slices#strid is 2, but nothing in the config reads slices#strid; did you",
    ("train", "slices", (("stride", 2),)): "--slices: found {'stride': 2} without preset, min_foreground, expected all",
    ("train", "network_def#head#shots", 2): "--network_def#head#shots: dino_uad.heads.dpmm.DPMMHead takes no shots; ex",
    ("train", "network_def#backbone#compiled", 1): "#compiled: found 1, expected True or False",
    ("train", "image_size", ("56", "56")): "--image_size: found ['56', '56'], expected a list of whole numbers",
    ("train", "cache_dir", 0): "--cache_dir: found 0, expected text or None",
    ("train", "num_workers", None): "--num_workers: found None, expected a whole number",
    ("inference", "inferer#batch_size", "4"): "--inferer#batch_size: found '4', expected a whole number",
}


def config(method, files, **more):
    parser = ConfigParser()
    parser.read_config([BUNDLES / method / "configs" / f"{name}.json" for name in files])
    parser.update(more)
    return parser


@pytest.mark.parametrize("method", METHODS)
def test_the_bundles_own_configs_pass(method):
    own = [["inference", "zero_shot"]] if method == "anomaly_dino" else []
    for files in RUNS + own:
        check_config(config(method, files), str(BUNDLES / method))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: "-".join(map(str, case)))
def test_refused(case):
    file, key, value = case
    if isinstance(value, tuple):
        value = dict(value) if value and isinstance(value[0], tuple) else list(value)
    with pytest.raises(ValueError, match=re.escape(REFUSED[case])):
        check_config(config("dpmm", [file], **{key: value}), str(BUNDLES / "dpmm"))


@pytest.mark.parametrize(
    "own",
    [
        {"epochs": 3, "max_epochs": "@epochs"},
        {"_note": "of mine"},
        {"slices": {"preset": None, "stride": 2, "min_foreground": 0.1}},
        {"train#dataset#data": [{"image": "a.png"}], "device": "cpu"},  # of MONAI Label
        {"my_loss": {"_target_": "torch.nn.L1Loss"}, "later": ["$print(1)"]},
        {"train#handlers": []},
        {"image_size": "$[56, 56]", "cache_dir": None},
    ],
    ids=lambda own: next(iter(own)),
)
def test_own_keys_that_are_read_or_made(own):
    check_config(config("dpmm", ["train"], **own), str(BUNDLES / "dpmm"))


class Untidy:
    """As libraries annotate what may be None."""

    def __init__(self, size: int = None):  # noqa: RUF013
        self.size = size


def test_a_components_own_default_is_of_the_right_kind():
    net = {"_target_": f"{__name__}.Untidy", "size": None}
    check_config(ConfigParser({"net": net}), None)
    with pytest.raises(ValueError, match=r"--net#size: found 'x', expected a whole number"):
        check_config(ConfigParser({"net": net | {"size": "x"}}), None)


@pytest.mark.parametrize("files", [["train"], ["train", "evaluate"]])
def test_experiment_tracking_adds_keys_of_its_own(files, tmp_path):
    paths = [str(BUNDLES / "dpmm" / "configs" / f"{name}.json") for name in files]
    own = {"tracking": "mlflow", "tracking_uri": "x", "run_name": "r", "output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(paths, logging_file=False, **own)
    check_config(workflow.parser, str(BUNDLES / "dpmm"))
