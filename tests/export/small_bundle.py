"""The bundles of the repository, made small: a random one-block backbone at 56 pixels, fitted to noise in a second."""

from pathlib import Path

import torch
from monai.bundle import ConfigParser

from dino_uad.handlers.finish import calibrate
from dino_uad.heads import GradientHead

BUNDLES = Path(__file__).parents[2] / "bundles"
SIDE = 56
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/metadata.json"))
SMALL_HEADS = {"dpmm": {"n_components": 8}, "spatial_ar": {"hidden": 16}}
BACKBONE = {"weights": "random", "layers": [0], "final_norm": False}
REAL_SIDE = 224


def overrides(name: str, real: bool = False) -> dict:
    """What makes a bundle of the repository small, for its training and so for its export; ``real``: not that small."""
    heads = {f"network_def#head#{key}": value for key, value in SMALL_HEADS.get(name, {}).items()}
    if real:
        return {"image_size": [REAL_SIDE, REAL_SIDE], **heads}
    backbone = {f"network_def#backbone#{key}": value for key, value in BACKBONE.items()}
    return {"image_size": [SIDE, SIDE], **backbone, **heads}


def fit(name: str, model: Path, real: bool = False) -> None:
    """Fit the network of a bundle's ``train.json`` to noise and write ``model``."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / name / "configs" / "train.json")
    parser.update(overrides(name, real))
    network = parser.get_parsed_content("network_def")
    images = torch.rand(4, 1, *network.image_size, generator=torch.Generator().manual_seed(0))
    embeddings, cls = network.embed(images)
    batch = {"embedding": embeddings.half(), "cls": cls}
    if isinstance(network.head, GradientHead):
        network.head.train()(embeddings)
        network.head.eval()
        if hasattr(network.head, "measure_residuals"):  # handlers.MeasureResiduals does, where a bundle has it
            network.head.measure_residuals(embeddings)
            network.head.end_measuring()
    else:
        network.head.fit_batch(embeddings, cls)
        network.head.end_epoch()
    calibrate(network, [batch], "cpu")
    model.parent.mkdir(parents=True)
    torch.save(network.state_dict(), model)
