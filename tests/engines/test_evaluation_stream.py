"""Volumes are evaluated one at a time, pictures in batches; nothing of a batch outlives it."""

import json
import weakref

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Average
from monai.data import DataLoader, Dataset, MetaTensor
from nibabel.orientations import axcodes2ornt, inv_ornt_aff

from dino_uad.data.collate import collate_slices, files_per_batch
from dino_uad.engines import evaluate
from dino_uad.engines.evaluate import DetectorEvaluator
from dino_uad.metrics import select
from dino_uad.metrics.maps import volumes_of
from dino_uad.transforms import ExtractSlicesd, LoadScand, OrientScand
from helpers import SIZE, detector, notes_meetings
from scans import write_nifti
from workflows import run


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.png", "b.JPG", "c.tiff"], 4),
        (["a.png", "b.nii.gz"], 1),
        (["a.nrrd"], 1),
        (["series/case1"], 1),
        (["archive.png/case1"], 1),
    ],
)
def test_files_per_batch(names, expected):
    assert files_per_batch([{"image": name} for name in names], pictures=4) == expected


def volume(entry):
    """Seven slices, with labels of another size."""
    generator = torch.Generator().manual_seed(entry["seed"])
    images = [MetaTensor(torch.rand(1, *SIZE, generator=generator)) for _ in range(7)]
    return [{"image": image, "label": torch.zeros(1, 20, 30), "has_mask": True} for image in images]


def evaluated(max_batch, batch_size=1):
    network = detector()
    network.head.fit_batch(*network.embed(torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(9))))
    loader = DataLoader(
        Dataset([{"seed": seed} for seed in range(3)], volume), batch_size=batch_size, collate_fn=collate_slices
    )
    evaluator = DetectorEvaluator(
        device=torch.device("cpu"), val_data_loader=loader, network=network, max_batch=max_batch
    )
    return evaluator


def outputs(evaluator):
    found = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: found.append(engine.state.output))
    evaluator.run()
    return [item for batch in found for item in batch]


def test_maps_do_not_depend_on_the_batches():
    one, other = outputs(evaluated(3)), outputs(evaluated(16, batch_size=3))
    assert len(one) == len(other) == 21
    for a, b in zip(one, other, strict=True):
        assert a["pred"].shape == (1, 20, 30) and torch.equal(a["image"], b["image"])
        torch.testing.assert_close(a["pred"], b["pred"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a["image_score"], b["image_score"], rtol=1e-4, atol=1e-5)


def test_a_batch_is_forgotten_before_the_next_is_loaded():
    evaluator, seen, alive = evaluated(3), [], []
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: seen.append(
            [weakref.ref(engine.state.output[0]["pred"]), weakref.ref(engine.state.batch["image"])]
        ),
    )
    evaluator.add_event_handler(
        Events.GET_BATCH_STARTED, lambda: alive.extend(ref() is not None for pair in seen for ref in pair)
    )
    evaluator.run()
    assert len(seen) == 3 and not any(alive)


def test_the_bundle_loads_one_volume_at_a_time(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("train0", "train1", "train2", "valid0", "test0", "test1"):
        path = tmp_path / "data" / name[:-1] / f"{name}.nii.gz"
        write_nifti(path, rng.integers(100, 999, (20, 20, 3)).astype(np.float32))
    mask = np.zeros((20, 20, 3), np.uint8)
    mask[3:8, 3:8, 1] = 1
    write_nifti(tmp_path / "data/test/test0_label.nii.gz", mask)
    run("dpmm", tmp_path)
    sizes = []
    collate = collate_slices
    monkeypatch.setattr("dino_uad.data.collate_slices", lambda batch: sizes.append(len(batch)) or collate(batch))
    run("dpmm", tmp_path, "evaluate", num_workers=0)  # on a GPU other processes would collate
    assert sizes == [1, 1]
    assert json.loads((tmp_path / "evaluate/metrics.json").read_text())["images"] == {"normal": 5, "anomalous": 1}


def picture(seed):
    """A file called image.png in a folder of its own, with a lesion."""
    values = torch.zeros(1, *SIZE)
    values[0, 10 * seed : 10 * seed + 4, :4] = 1 + seed
    meta = {"filename_or_obj": f"patient{seed}/image.png", "picture": False}
    meta |= {"scan_shape": (*SIZE, 3), "scan_affine": np.eye(4)}  # of the volumes
    return {"image": MetaTensor(values, meta=meta), "label": MetaTensor((values > 0).to(torch.uint8)), "has_mask": True}


def test_pictures_and_volumes_of_one_name_are_scans_of_their_own():
    volumes = [[{**picture(0), "slice_index": k} for k in range(depth)] for depth in (3, 2)]
    batch = collate_slices([*map(ExtractSlicesd(), map(picture, range(4))), *volumes, picture(0)])
    assert batch["scan"] == [0, 1, 2, 3, 4, 4, 4, 5, 5, 6] and batch["slice_index"][:5] == [None] * 4 + [0]
    assert set(batch["name"]) == {"image.png"}
    items = [{key: values[k] for key, values in batch.items()} for k in range(len(batch["scan"]))]
    items = [{**item, "pred": item["image"], "mask": item["label"] > 0} for item in items]
    assert [len(scores) for scores, _ in volumes_of(*select.scans(items))] == [1, 1, 1, 1, 3, 2, 1]
    items[1] |= {"pred": torch.rand(1, 5, 9), "mask": torch.ones(1, 5, 9) > 0}  # sizes of pictures differ
    assert [len(scores) for scores, _ in volumes_of(*select.scans(items))] == [1, 1, 1, 1, 3, 2, 1]


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRA", "PIL"])
@pytest.mark.parametrize(("axcodes", "pair"), [("PLS", "SI"), ("ILP", "PA"), ("IPL", "LR")])
def test_slices_are_numbered_as_in_their_file(codes, axcodes, pair, tmp_path):
    """Whatever way the network sees them: each slice holds its own number along the file's axis, from 1."""
    affine = np.linalg.inv(inv_ornt_aff(axcodes2ornt(codes), (6, 7, 8)))
    assert "".join(nib.aff2axcodes(affine)) == codes
    axis = next(i for i, code in enumerate(codes) if code in pair)
    values = np.indices((6, 7, 8))[axis].astype(np.float32) + 1
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "volume.nii.gz")
    volume = OrientScand("image", axcodes)(LoadScand("image")({"image": str(tmp_path / "volume.nii.gz")}))
    slices = ExtractSlicesd("image")(volume)
    batch = collate_slices([[{**one, "label": one["image"], "has_mask": False} for one in slices]])
    assert batch["slice_number"] == [int(image.unique()) for image in batch["image"]]
    assert sorted(batch["slice_number"]) == list(range(1, (6, 7, 8)[axis] + 1))


def test_pictures_of_one_name_have_each_a_foreground_of_its_own():
    network, found = detector(foreground="auto"), []
    find = network.foreground.of_scans
    network.foreground.of_scans = lambda images, scans: found.append(list(scans)) or find(images, scans)
    network.head.fit_batch(*network.embed(torch.rand(2, 1, *SIZE)))
    loader = DataLoader(Dataset(range(4), picture), batch_size=4, collate_fn=collate_slices)
    DetectorEvaluator(device=torch.device("cpu"), val_data_loader=loader, network=network).run()
    assert found == [[0, 1, 2, 3]]


def test_ranks_meet_when_all_their_images_are_measured(monkeypatch):
    """Their volumes have other numbers of slices; collectives, which wait for ten minutes, begin with the metrics."""
    events = []
    notes_meetings(monkeypatch, evaluate, events)

    class Metric(Average):
        def iteration_completed(self, engine):
            events.append("update")

        def compute(self):
            events.append("collective")
            return 0.0

    made = evaluated(3)
    evaluator = DetectorEvaluator(
        device=torch.device("cpu"),
        val_data_loader=made.data_loader,
        network=made.network,
        key_val_metric={"any": Metric()},
    )
    evaluator.run()
    assert events == ["work", *["update"] * 3, "meet", "collective"]
