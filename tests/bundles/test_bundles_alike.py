"""The four bundles' configs are whole files, since a shared zip stands alone; here they are held together."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from monai.bundle import ConfigParser
from monai.handlers import MLFlowHandler

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
REFERENCE = "dpmm"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json"))
OTHERS = [name for name in NAMES if name != REFERENCE]
FILES = sorted(BUNDLES.glob("*/configs/*.json"))

OF_ONE_METHOD = {"anomaly_dino": {"zero_shot.json"}}
"""Configs that one method has and the others cannot have."""
OWN_SETTINGS = {"paper.json"}
"""A method's published settings: nothing of it is shared."""

OWN_HANDLER = "dino_uad.handlers.MeasureResiduals"  # of Spatial AR
# Keys that may differ from the reference's, with all that is below them; each must differ somewhere.
NETWORK = {"bundle_root", "network_def#head"}
MAY_DIFFER = {
    "train.json": NETWORK
    | {
        "max_epochs",
        "max_steps",
        "batch_size",
        "learning_rate",
        "one_cycle",
        "patience",
        "amp",
        "rotations",
        "rotate",
        "mask_method",
        "train#preprocessing#transforms#5",  # the foreground, where the method needs one
        "train#dataset#transform",  # rotated copies
        "train#dataloader#batch_size",
        "train#dataloader#shuffle",
        "train#dataloader#drop_last",
        "train#optimizer",
        "train#loss",
        "train#prepare_batch",
        "train#handlers#3#save_dict#optimizer",
        "train#handlers#3#save_dict#schedule",
        "train#handlers#3#early_stop",
        "train#schedule",  # the learning rate
        "train#trainer#max_steps",
        "train#trainer#_target_",
        "train#trainer#network",
        "train#trainer#optimizer",
        "train#trainer#loss_function",
        "train#trainer#inferer",
        "train#trainer#prepare_batch",
        "train#trainer#schedule",
        "train#trainer#amp",
        "validate#early_stop",
        "validate#handlers#2",
    },
    "inference.json": NETWORK | {"zero_shot", *(f"postprocessing#transforms#{i}#_disabled_" for i in (0, 3, 4))},
    "metadata.json": {"name", "description", "references"},
}


def leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a config with its key, as MONAI writes it: ``network_def#head#seed``."""
    children = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    if not children:
        yield path, content
    for key, value in children:
        yield from leaves(value, f"{path}#{key}".lstrip("#"))


def config(bundle: str, file: str) -> dict[str, Any]:
    """A config without the handler that one method alone has, so that the others stand at the same places."""
    content = json.loads((BUNDLES / bundle / "configs" / file).read_text())
    handlers = content.get("train", {}).get("handlers", [])
    handlers[:] = [handler for handler in handlers if handler["_target_"] != OWN_HANDLER]
    return content


def differences(bundle: str, file: str) -> set[str]:
    """The keys of values that this bundle and the reference do not share."""
    ours, reference = dict(leaves(config(bundle, file))), dict(leaves(config(REFERENCE, file)))
    absent = object()
    return {key for key in ours.keys() | reference.keys() if ours.get(key, absent) != reference.get(key, absent)}


def covers(allowed: str, key: str) -> bool:
    return key == allowed or key.startswith(allowed + "#")


@pytest.mark.parametrize("bundle", NAMES)
def test_what_is_not_the_methods_own_is_the_same_bytes(bundle: str):
    files = {path.name for path in (BUNDLES / bundle / "configs").iterdir()} - OF_ONE_METHOD.get(bundle, set())
    reference = {path.name for path in (BUNDLES / REFERENCE / "configs").iterdir()}
    assert files - OWN_SETTINGS == reference - OWN_SETTINGS
    for name in ["LICENSE", *(f"configs/{file}" for file in files - OWN_SETTINGS - MAY_DIFFER.keys())]:
        assert (BUNDLES / bundle / name).read_bytes() == (BUNDLES / REFERENCE / name).read_bytes(), name


@pytest.mark.parametrize("file", MAY_DIFFER)
@pytest.mark.parametrize("bundle", OTHERS)
def test_a_bundle_differs_in_its_method_only(bundle: str, file: str):
    unexpected = {key for key in differences(bundle, file) if not any(covers(k, key) for k in MAY_DIFFER[file])}
    assert not unexpected, f"edit {file} of the bundles alike, or let these keys differ (MAY_DIFFER)"


@pytest.mark.parametrize("file", MAY_DIFFER)
def test_every_key_that_may_differ_does(file: str):
    found = set().union(*(differences(bundle, file) for bundle in OTHERS))
    assert not {allowed for allowed in MAY_DIFFER[file] if not any(covers(allowed, key) for key in found)}


@pytest.mark.parametrize("file", MAY_DIFFER)
@pytest.mark.parametrize("bundle", OTHERS)
def test_shared_keys_stand_in_the_same_order(bundle: str, file: str):
    place = {key: number for number, (key, _) in enumerate(leaves(config(REFERENCE, file)))}
    shared = [key for key, _ in leaves(config(bundle, file)) if key in place]
    assert all(place[first] < place[second] for first, second in pairwise(shared))


LISTS = {
    part.lstrip("+")
    for path in FILES
    for key, _ in leaves(json.loads(path.read_text()))
    for part, after in pairwise(key.split("#"))
    if after.isdecimal()
}
PAGES = [
    *BUNDLES.glob("*/docs/*.md"),
    *(BUNDLES.parent / "common" / "docs").rglob("*.md"),
    *BUNDLES.parent.glob("*.md"),
]


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda path: path.relative_to(BUNDLES.parent).as_posix())
def test_nothing_is_found_by_its_place_in_a_list(path: Path):
    """A step that somebody inserts, as MONAI Label does before the handlers, would have it mean another one."""
    assert {"transforms", "handlers", "run"} <= LISTS
    assert not re.findall(rf"\b(?:{'|'.join(LISTS)})(?:#|::)\d[\w#]*", path.read_text())


@pytest.mark.parametrize("bundle", NAMES)
def test_ranks_after_the_first_leave_out_tensorboard_wherever_it_stands(bundle: str, tmp_path: Path):
    inserted = config(bundle, "train.json")
    inserted["train"]["handlers"].insert(0, {"_target_": "CheckpointLoader"})
    (tmp_path / "train.json").write_text(json.dumps(inserted))
    joined = ConfigParser.load_config_files(
        [str(tmp_path / "train.json"), str(BUNDLES / bundle / "configs" / "multi_gpu_train.json")]
    )
    assert joined["rank"] == {"_target_": "dino_uad.parallel.rank"}
    for part in ("train", "validate"):
        handlers = [handler for handler in joined[part]["handlers"] if isinstance(handler, dict)]
        left_out = {handler["_target_"]: handler["_disabled_"] for handler in handlers if "_disabled_" in handler}
        assert left_out == {"TensorBoardStatsHandler": "$@rank > 0"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parents[1].name}/{path.name}")
def test_a_plain_reference_is_no_expression_and_the_models_file_is_named_once(path: Path):
    values = [str(value) for _, value in leaves(json.loads(path.read_text()))]
    assert not [value for value in values if re.fullmatch(r"\$@[\w#]+", value)]
    assert [value for value in values if "model.pt" in value] in ([], ["$@ckpt_dir + '/model.pt'"])


def test_an_evaluation_ends_the_run_of_its_tracking_and_touches_no_other_handler():
    class Tracking(MLFlowHandler):
        closed = False

        def __init__(self):
            pass

        def close(self):
            self.closed = True

    tracking, other = Tracking(), SimpleNamespace(closed=False, close=None)
    finalize = json.loads((BUNDLES / REFERENCE / "configs" / "evaluate.json").read_text())["finalize"]
    parser = ConfigParser({"validate": {"handlers": [other, tracking]}, "finalize": finalize})
    parser.get_parsed_content("finalize")
    assert tracking.closed and not other.closed
