"""Batched zero-shot: the odd one out stands out, without any training image."""

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from dino_uad.engines.batched_zero_shot import zero_shot
from dino_uad.inferers import occupied_slices
from helpers import SIZE, backbone, load_unit, pictures


def unchanged(item):
    return item


def test_patch_that_only_one_image_has_scores_highest(tmp_path):
    rng = np.random.default_rng(0)
    texture = rng.integers(90, 110, SIZE, dtype=np.uint8)
    for i in range(5):
        image = texture.copy()
        if i == 3:
            image[14:28, 28:42] = 255
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    entries = [{"image": str(path)} for path in sorted(tmp_path.glob("*.png"))]
    results = zero_shot(entries, load_unit, unchanged, backbone(), smoothing_sigma=0)
    maps = torch.stack([item["pred"] for item in results])
    assert maps.shape == (5, 1, *SIZE)
    highest = np.unravel_index(int(maps.argmax()), maps.shape)
    assert highest[0] == 3 and 14 <= highest[2] < 28 and 28 <= highest[3] < 42


def test_volumes_are_scored_by_slice_and_empty_slices_stay_zero():
    volume = torch.rand(1, *SIZE, 4, generator=torch.Generator().manual_seed(0))
    volume[..., 1] = 0
    assert occupied_slices(volume).tolist() == [0, 2, 3]
    (item,) = zero_shot([{}], lambda entry: {"image": volume}, unchanged, backbone())
    assert item["pred"].shape == volume.shape
    assert not item["pred"][..., 1].any() and item["pred"][..., [0, 2, 3]].flatten(0, 2).any(dim=0).all()


def test_one_image_has_nothing_to_be_compared_with(tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        zero_shot(pictures(tmp_path, 1), load_unit, unchanged, backbone())


def test_the_bundles_config_writes_maps_on_the_grid_of_the_input(tmp_path):
    from dino_uad.bundle_run import find_bundle, run

    root = find_bundle("anomaly_dino") / "configs"
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in "ab":
        image = nib.Nifti1Image(rng.integers(1, 200, (30, 20, 2)).astype(np.int16), np.diag([-1, 1, 2, 1]))
        nib.save(image, tmp_path / "in" / f"{name}.nii.gz")
    import sys

    line = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", str(root.parent)]
    line += ["--config_file", str([str(root / "inference.json"), str(root / "zero_shot.json")])]
    line += ["--dataset_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out"), "--image_size", "[56,56]"]
    run([*line, "--network_def#backbone#weights", "random"])
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a_anomaly.nii.gz", "b_anomaly.nii.gz"]
    found = nib.load(tmp_path / "out" / "a_anomaly.nii.gz")
    assert found.shape == (30, 20, 2) and np.allclose(found.affine, np.diag([-1, 1, 2, 1]))
    assert found.get_fdata().max() > 0
