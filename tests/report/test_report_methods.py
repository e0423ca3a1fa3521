"""What the report tells of each method."""

import re

import pytest
import torch

from dino_uad.heads.anomaly_dino.head import AnomalyDinoHead
from dino_uad.heads.dino_ad.head import DinoADHead
from dino_uad.heads.dpmm.head import DPMMHead
from dino_uad.heads.head import Head
from dino_uad.heads.spatial_ar.head import SpatialARHead
from dino_uad.report.methods import MethodContext, method_section
from dino_uad.report.sections import Section
from dino_uad.report.shown_cases import Case
from dino_uad.report.training import TrainingPictures
from helpers import SIZE, backbone, detector, load_unit, pictures


def context(head: Head, folder, fit: bool = True, **kwargs) -> MethodContext:
    """A head fitted on five pictures; the case to explain is the fourth of them, so its neighbour is known."""
    entries = pictures(folder, 5)
    network = detector(backbone=backbone(), head=head).eval()
    images = torch.stack([load_unit(entry)["image"] for entry in entries])
    if fit:
        with torch.no_grad():
            embeddings, cls = network.embed(images)
        head.fit_batch(embeddings, cls)
        head.end_epoch()
    case = Case("case.png", images[3].half(), torch.rand(SIZE).half(), None, {})
    training = TrainingPictures(lambda: entries, load_unit, **kwargs)
    return MethodContext(network, torch.device("cpu"), [("Best", case)], torch.rand(4, 4), training)


def captions(section: Section) -> str:
    return " | ".join(picture.caption for gallery in section.galleries for picture in gallery.pictures)


def test_methods_are_called_as_their_papers_call_them():
    class Fifth(Head):
        """Of somebody else."""

    heads = DPMMHead(4, n_components=2), SpatialARHead(4), DinoADHead(4), AnomalyDinoHead(4), Fifth(4)
    assert [head.method for head in heads] == ["DPMM", "Spatial AR", "DINO-AD", "AnomalyDINO", "Fifth"]


def test_dpmm_shows_weights_and_assignments(tmp_path):
    head = DPMMHead(384, n_components=6)
    section = method_section(head, context(head, tmp_path))
    assert section.facts["active components"] == f"{head.n_active} of 6"
    assert [len(gallery.pictures) for gallery in section.galleries] == [2, 1]


def test_dino_ad_names_the_support_image(tmp_path):
    head = DinoADHead(384)
    section = method_section(head, context(head, tmp_path))
    assert "support image 3" in captions(section)
    assert "003.png" in captions(section)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "of the normal image whose class token is most similar: a patch counts by its mean similarity"),
        ({"n_support": 3, "similarity": "max"}, "the 3 normal images .* first is shown: a patch counts by the most"),
        ({"support": "random"}, "of a normal image that is drawn at random"),
    ],
)
def test_dino_ad_says_what_it_compares_with(tmp_path, settings, said):
    head = DinoADHead(384, **settings)
    made = context(head, tmp_path)
    section = method_section(head, made)
    assert re.search(said, section.text)
    shown = int(head.supports(made.embed(made.cases[0][1].image)[1])[0, 0])
    assert f"support image {shown}," in captions(section)


@pytest.mark.parametrize("shots", [None, 3])
def test_anomaly_dino_shows_the_nearest_patch(tmp_path, shots):
    head = AnomalyDinoHead(384, shots=shots)
    section = method_section(head, context(head, tmp_path))
    keys = torch.rand(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert "to a patch of 00" in captions(section)
    if shots is None or 3 in keys.argsort()[:3]:
        assert "patch of 003.png" in captions(section)


def test_other_pictures_than_those_of_the_fit_are_not_shown(tmp_path):
    head = DinoADHead(384)
    fitted = context(head, tmp_path / "fit")
    others = pictures(tmp_path / "others", 5, seed=1)
    # Random backbones see little difference between noise pictures: make the stored token another one for certain.
    head.class_tokens = -head.class_tokens
    moved = MethodContext(
        fitted.network, fitted.device, fitted.cases, None, TrainingPictures(lambda: others, load_unit)
    )
    assert ".png (right)" not in captions(method_section(head, moved))


def test_training_images_are_anonymous_on_request(tmp_path):
    head = DinoADHead(384)
    section = method_section(head, context(head, tmp_path, anonymous_names=True))
    assert "training image 3" in captions(section)
    assert "003.png" not in captions(section)


def test_a_data_set_without_training_images_is_no_error(tmp_path):
    def missing():
        raise FileNotFoundError("no train folder")

    head = DinoADHead(384)
    fitted = context(head, tmp_path)
    bare = MethodContext(fitted.network, fitted.device, fitted.cases, None, TrainingPictures(missing, load_unit))
    assert "support image 3" in captions(method_section(head, bare))


def test_spatial_ar_shows_the_error_by_position(tmp_path):
    head = SpatialARHead(384, hidden=8)
    head.position_error = torch.rand(1, 4, 4)
    section = method_section(head, context(head, tmp_path, fit=False))
    assert [len(gallery.pictures) for gallery in section.galleries] == [2]
    assert "scores are divided by" in captions(section)
    assert "before it in reading order; the score is the mean squared error" in section.text
    assert section.text.endswith("; scores are divided by the error of normal images there.")


def test_spatial_ar_without_calibration_by_position_does_not_speak_of_it(tmp_path):
    head = SpatialARHead(384, hidden=8, direction="both", covariance="full")
    text = method_section(head, context(head, tmp_path, fit=False)).text
    assert "again from those after it; the score is the error's length" in text and "divided" not in text


def test_a_new_method_registers_its_own_section(tmp_path):
    class FifthHead(Head):
        pass

    head = FifthHead(384)
    assert "FifthHead" in method_section(head, context(head, tmp_path, fit=False)).text

    @method_section.register
    def _(head: FifthHead, context: MethodContext) -> Section:
        return Section("What the method learned", "its own words")

    assert method_section(head, context(head, tmp_path, fit=False)).text == "its own words"
