"""Labels that dataset.json calls after organs are no anomalies: they are asked for, and the answers work."""

import json
import re

import layouts
import nibabel as nib
import numpy as np
import pytest
from understood_cases import anomalous, understood

from dino_uad.data.case import Options
from dino_uad.data.cases import understand
from dino_uad.data.check import check

FILES = [line.format(k) for k in range(5) for line in ("imagesTr/x_{}.nii.gz", "labelsTr/x_{}.nii.gz = mask")]

ORGANS = {
    "MSD spleen": {"0": "background", "1": "spleen"},
    "MSD liver": {"0": "background", "1": "liver", "2": "cancer"},
    "MSD heart": {"0": "background", "1": "left atrium"},
    "nnU-Net": {"background": 0, "liver": 1, "tumor": 2},
    "nnU-Net regions": {"background": 0, "kidney": [1, 2], "tumor": [2], "ignore": 3},
    "nnU-Net ignore": {"kidney": 1, "ignore": 2},
}


@pytest.mark.parametrize("name", ORGANS)
def test_labels_of_organs_are_asked_for_with_answers_that_work(tmp_path, name):
    layouts.write(tmp_path, FILES)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": ORGANS[name]}))
    with pytest.raises(ValueError, match=r"dataset\.json: the labels are .*name organs; expected marks") as error:
        understood(tmp_path)
    assert ("liver_ct" in str(error.value)) == (len(ORGANS[name]) > 2)
    pattern = re.search(r"--train_data#mask_pattern '([^']*\*)'", str(error.value))[1]
    assert len(anomalous(understood(tmp_path, mask_pattern=pattern))) == 5
    assert not anomalous(understood(tmp_path, mask_pattern="none", normal="*"))


LESIONS = {"MSD liver": "[2]", "nnU-Net": "[2]", "nnU-Net regions": "[2]", "two": "[2, 4]"}
MORE = {"two": {"background": 0, "prostate": 1, "tumour": [2, 4], "cyst": 4, "ignore": 5}}


@pytest.mark.parametrize("name", LESIONS)
def test_labels_of_lesions_among_organs_are_proposed_and_taken(tmp_path, name):
    layouts.write(tmp_path, FILES)
    for k in range(3):
        label = nib.load(tmp_path / f"labelsTr/x_{k}.nii.gz")
        nib.save(nib.Nifti1Image(2 * np.asarray(label.dataobj).astype(np.uint8), label.affine), label.get_filename())
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": (ORGANS | MORE)[name]}))
    with pytest.raises(ValueError, match=r"Say which mark anomalies: --train_data#anomalous_labels '\[2") as error:
        understood(tmp_path)
    proposed = re.search(r"anomalous_labels '(\[.*?\])'", str(error.value))[1]
    assert proposed == LESIONS[name]
    found = understand(tmp_path, Options(anomalous_labels=json.loads(proposed)))
    assert anomalous(found.cases) == {f"imagesTr/x_{k}.nii.gz" for k in range(3)}
    assert "every one counts" not in " ".join(found.notes)


@pytest.mark.parametrize("labels", [{"1": "cancer"}, {"background": 0, "edema": 1, "enhancing tumor": 2}, {"1": "MS"}])
def test_labels_of_lesions_are_told_of(tmp_path, labels):
    layouts.write(tmp_path, FILES)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    found = understand(tmp_path, Options())
    assert len(anomalous(found.cases)) == 5
    assert "labels of dataset.json: 1 " in " ".join(found.notes)


def test_check_prints_the_values_of_label_maps(tmp_path, capsys):
    layouts.write(tmp_path, FILES)
    for path in (tmp_path / "labelsTr").iterdir():
        label = nib.load(path)
        values = np.asarray(label.dataobj).copy()
        values[0, 0] = 3
        nib.save(nib.Nifti1Image(values, label.affine), path)
    check(str(tmp_path))
    assert "masks looked at have the values 0, 1, 3" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{", '{"labels": 3}', '{"labels": {}}'])
def test_a_dataset_json_without_labels_says_nothing(tmp_path, text):
    layouts.write(tmp_path, FILES)
    (tmp_path / "dataset.json").write_text(text)
    assert len(anomalous(understood(tmp_path))) == 5
