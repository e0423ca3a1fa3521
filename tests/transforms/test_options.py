"""A wrong option of a request is named, to whoever asks."""

import sys
import types

import pytest

from dino_uad.transforms.options import CheckOptions

GOOD = {"false_positive_rate": ["5 %", "1 %"], "smoothing": "1.5", "output": ["anomaly map"]}
GOOD |= {"grow": ["1 %", "5 %"], "min_size": "0.1 ml"}
BAD = [
    (
        "false_positive_rate",
        "2 %",
        r"false positive rate '2 %' found; this model is calibrated for 0\.1, 0\.05, ",
    ),
    ("grow", "2 %", r"false positive rate '2 %' found"),
    ("min_size", "2 inches", r"smallest size '2 inches' found; expected 0 \(all\)"),
    ("smoothing", "wide", r"smoothing 'wide' found; expected a number of slices from 0 to 1000"),
    ("smoothing", -1, r"smoothing -1 found"),
    ("smoothing", "nan", r"smoothing 'nan' found"),
    ("smoothing", 1e9, r"smoothing 1000000000\.0 found"),
    ("smoothing", None, r"smoothing None found"),
    ("output", "mask", r"output 'mask' found; expected 'label map', 'numbered findings' or 'anomaly map'"),
    ("output", [], r"output \[\] found"),
]


def test_good_options_pass_the_data_on():
    data = {"image": "a.nii.gz"}
    assert CheckOptions(**GOOD)(data) is data
    assert CheckOptions(0.01, 0, "label map")(data) is data
    assert CheckOptions("1 finding in 10 scans", 0, "numbered findings", grow=False, min_size=2)(data) is data


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_bad_option_is_named(name, value, message):
    with pytest.raises(ValueError, match=f"^option {name}: {message}"):
        CheckOptions(**{**GOOD, name: value})({})


def test_in_a_server_the_refusal_is_one_that_the_web_framework_answers(monkeypatch, caplog):
    class HTTPException(Exception):
        pass

    monkeypatch.setitem(sys.modules, "monailabel.app", types.ModuleType("monailabel.app"))
    framework = types.ModuleType("starlette.exceptions")
    framework.HTTPException = HTTPException
    monkeypatch.setitem(sys.modules, "starlette", types.ModuleType("starlette"))
    monkeypatch.setitem(sys.modules, "starlette.exceptions", framework)
    with pytest.raises(HTTPException) as caught:
        CheckOptions(**{**GOOD, "output": "mask"})({})
    assert caught.value.args[0] == 400 and caught.value.args[1].startswith("option output: output 'mask' found")
    assert "request refused: option output" in caplog.text
