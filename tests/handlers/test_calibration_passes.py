"""Which passes a calibration makes, and what it remembers of the files that it looks at again."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from dino_uad.detector.units import Units
from dino_uad.handlers import WorklistHandler, calibration
from dino_uad.handlers.calibration import calibrate
from dino_uad.heads import Head
from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.heads.mean_distance import MeanDistanceHead
from dino_uad.heads.spatial_ar import SpatialARHead
from dino_uad.transforms import ExtractSlicesd, LoadScand, OrientScand, ScaleToUnitd
from helpers import SIZE, detector
from scans import write_itk


class OwnHead(MeanDistanceHead):
    """A head of somebody else's, who wrote a method and nothing else."""

    def calibrate_batch(self, embeddings, cls=None, mask=None):
        self.seen = len(embeddings)


@pytest.mark.parametrize(
    ("head", "passes"),
    [
        (MeanDistanceHead, 1),
        (OwnHead, 2),
        (DinoADHead, 2),
        (lambda channels: SpatialARHead(channels, hidden=8, dilations=(1,)), 2),
        (lambda channels: SpatialARHead(channels, hidden=8, dilations=(1,), position_calibration=False), 1),
    ],
)
def test_images_are_read_once_more_only_for_a_head_that_learns_from_it(head, passes):
    network = detector(head=head(384))
    embeddings, cls = network.embed(torch.rand(3, 1, *SIZE))
    if isinstance(network.head, SpatialARHead):
        network.head.batches_seen += 1
    else:
        network.head.fit_batch(embeddings, cls)
        network.head.end_epoch()
    made = []

    class Loader(list):
        def __iter__(self):
            made.append("pass")
            return super().__iter__()

    calibrate(network, Loader([{"embedding": embeddings, "cls": cls}]), "cpu")
    assert len(made) == passes and Head(1).calibrates is False


def test_units_are_those_of_every_single_score():
    # Of both signs: bins of the histogram are 2048 floats wide, and one of them off is 1e-4 of a knot.
    raw = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    network, single = detector(units=True), Units()
    scored = [{"raw_scores": part, "foreground": torch.ones_like(part, dtype=torch.bool)} for part in raw.split(7)]
    calibration._fit_units(network, [*scored, {key: value[:0] for key, value in scored[0].items()}], "cpu")
    single.fit(*raw.unique(return_counts=True))
    assert network.units.knots.equal(single.knots)
    torch.testing.assert_close(network.units.tail, single.tail, rtol=1e-5, atol=1e-5)


class Files:
    """A data set of files, as embeddings are made of."""

    def __init__(self, paths, axcodes):
        self.entries = [{"image": str(path)} for path in paths]
        keys = "image"
        self.transform = Compose(
            [LoadScand(keys), OrientScand(keys, axcodes), ScaleToUnitd(keys), ExtractSlicesd(keys)]
        )


def files(folder, kind):
    """Twelve volumes of 1 x 2 x 4 mm (or of 1 mm) whose origin is 0, or pictures."""
    rng, paths = np.random.default_rng(0), []
    for i in range(12):
        paths.append(folder / f"{i}.{'png' if kind == 'picture' else 'mha'}")
        if kind == "picture":
            Image.fromarray(rng.integers(1, 255, (9, 8), dtype=np.uint8)).save(paths[-1])
        else:
            spacing = (1.0, 1.0, 1.0) if kind == "cubes" else (1.0, 2.0, 4.0)
            write_itk(paths[-1], rng.integers(1, 999, (8, 9, 5)).astype(np.float32), spacing, (0.0, 0.0, 0.0))
    return paths


@pytest.mark.parametrize(
    ("kind", "axcodes", "spacing", "kinds"),
    [
        ("picture", "PLS", None, [True, False]),
        ("cubes", "PLS", (1, 1), [False, True]),
        ("scans", "PLS", (2**0.5, 4), [False, True]),
        ("scans", "IPL", (8**0.5, 1), [False, True]),
        ("scans", "ILP", (2, 2), [False, True]),
    ],
)
def test_what_is_remembered_is_that_of_the_slices_of_the_fit(tmp_path, kind, axcodes, spacing, kinds):
    network = detector(preprocessing={"axcodes": axcodes})
    calibration._fit_seen(network, Files(files(tmp_path, kind), axcodes))
    seen = network.normal_scans.seen
    assert seen.kinds.tolist() == kinds
    if spacing is None:
        assert seen.ranges[:2].isnan().all() and not seen.orientations.any()
    else:
        torch.testing.assert_close(seen.ranges[:2], torch.tensor(spacing)[:, None].expand(2, 2).float())
        assert seen.orientations.sum() == 1


def test_inference_compares_in_the_slices_of_the_fit(tmp_path):
    paths = files(tmp_path, "scans")
    for axcodes in ("PLS", "IPL"):
        network, data = detector(preprocessing={"axcodes": axcodes}), Files(paths, axcodes)
        calibration._fit_seen(network, data)
        handler = WorklistHandler(None, network, Compose([]))
        image = Compose(data.transform.transforms[:3])(data.entries[0])["image"]
        assert handler._unlike_the_fit(image) == []
        # 4 x 4 patches; of 8 x 9 x 3 voxels the axial slices have enough pixels, the sagittal ones have not.
        thin = write_itk(tmp_path / "thin.mha", np.ones((8, 9, 3), np.float32))
        notes = handler._too_few_pixels(LoadScand("image")({"image": thin})["image"])
        assert [note.partition(",")[0] for note in notes] == (["only 9 x 3 pixels"] if axcodes == "IPL" else [])


def test_a_file_that_cannot_be_read_leaves_a_trace_and_our_mistakes_are_raised(tmp_path, monkeypatch):
    network, data = detector(), Files(files(tmp_path, "picture"), "PLS")
    (tmp_path / "3.png").write_bytes(b"no picture")
    said = []
    monkeypatch.setattr(calibration.logger, "debug", lambda *args, **more: said.append((*args, more)))
    calibration._fit_seen(network, data)
    ((text, file, more),) = said
    assert text % file == f"{tmp_path / '3.png'}: cannot be looked at again" and more == {"exc_info": True}
    assert network.normal_scans.seen.known

    def broken(*args):
        raise KeyError("scan_shape")

    monkeypatch.setattr(calibration, "looks", broken)
    with pytest.raises(KeyError, match="scan_shape"):
        calibration._fit_seen(network, data)
