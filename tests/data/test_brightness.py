"""Data sets that use a small part of their type's range are told of, with the range that fits."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dino_uad.data.brightness import warn_dark
from dino_uad.errors import explain
from dino_uad.transforms import LoadScand, ScaleToUnitd
from workflows import overrides, run


def items(folder, *tops):
    for k, top in enumerate(tops):
        Image.fromarray(np.linspace(0, top, 48).reshape(6, 8).astype(np.uint16)).save(folder / f"{k:02d}.png")
    return [{"image": str(path)} for path in sorted(folder.iterdir())]


def test_twelve_bits_in_sixteen_get_the_range_of_the_whole_set(tmp_path, caplog):
    found = items(tmp_path, *[3000] * 20, 4095, *[3000] * 20)
    warn_dark(found)
    assert "{'mode':'range','window':[0,4095]}" in caplog.text
    image = ScaleToUnitd("image", "range", (0, 4095))(LoadScand("image")(found[20]))["image"]
    np.testing.assert_allclose(image.max(), 1, atol=1e-5)


def test_a_dead_pixel_hides_no_dark_set(tmp_path, caplog):
    for k in range(3):
        values = np.linspace(0, 4000, 400).reshape(20, 20).astype(np.uint16)
        values[3, 3] = 65535
        Image.fromarray(values).save(tmp_path / f"{k}.png")
    warn_dark([{"image": str(path)} for path in tmp_path.iterdir()])
    assert "{'mode':'range','window':[0,39" in caplog.text


@pytest.mark.parametrize(("top", "said"), [(0, "are black"), (60000, "")])
def test_black_and_bright_sets(tmp_path, caplog, top, said):
    warn_dark(items(tmp_path, top, top))
    assert (said in caplog.text) if said else not caplog.text


def test_a_range_holds_from_the_fit_to_evaluation_and_inference(tmp_path):
    """12 bits in 16 with their range give what the same pictures give that fill their 16 bits; without it, an error."""
    found = {}
    for name, top, more in (("full", 65535, {}), ("dark", 4095, {"intensity": {"mode": "range", "window": [0, 4095]}})):
        folder = tmp_path / name
        overrides("dpmm", folder)
        for path in sorted(folder.glob("data/**/*.png")):
            if path.parent.name != "label":  # sixteen levels, which both types hold exactly
                levels = np.asarray(Image.open(path)).astype(np.uint32) // 16
                Image.fromarray((levels * (top // 15)).astype(np.uint16)).save(path)
        for kind in ("train", "evaluate", "inference"):
            run("dpmm", folder, kind, **more)
        with open(folder / "inference" / "scores.csv", encoding="utf-8") as file:
            scores = [float(row["image_score"]) for row in csv.DictReader(file) if row["status"] == "scored"]
        found[name] = [
            *scores,
            json.loads(Path(folder / "evaluate" / "metrics.json").read_text())["metrics"]["pixel_auroc"],
        ]
    assert len(found["full"]) == 11
    np.testing.assert_allclose(found["dark"], found["full"], rtol=1e-4)
    with pytest.raises(Exception) as caught:
        run("dpmm", tmp_path / "dark", "inference", output_dir=str(tmp_path / "again"))
    assert re.search("preprocessing: .*'range'.*4095.*'auto'.*repeat the overrides", explain(caught.value))
