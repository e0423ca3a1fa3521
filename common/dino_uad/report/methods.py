"""What the method learned, one function per type of head.

A new method needs no change here: its module registers a function of its own::

    @method_section.register
    def _(head: MyHead, context: MethodContext) -> Section:
        return Section("What the method learned", f"{len(head.bank)} patches.")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad.detector import AnomalyDetector
from dino_uad.heads import Head
from dino_uad.heads.anomaly_dino import AnomalyDinoHead, nearest_neighbours
from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.heads.dpmm import DPMMHead
from dino_uad.heads.spatial_ar import SpatialARHead
from dino_uad.report import charts, panels
from dino_uad.report.cases import Case
from dino_uad.report.sections import Gallery, Picture, Section
from dino_uad.report.training import TrainingPictures

TITLE = "What the method learned"
NORMAL_SCORES = "mean patch score of normal test images"
HEAVIEST = 20
# Okabe and Ito's palette, for the components most frequent in the pictures; bars of others share a grey.
COMPONENT_COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)]
)
OTHER_COLOUR = (190, 190, 190)
SAME_VECTOR = 0.99
"""Cosine above which an embedding is the stored one; half precision and another batch size change it by 1e-3."""


@dataclass(frozen=True)
class MethodContext:
    """What a method's section may use.

    Attributes:
        network: the evaluated detector.
        device: where it runs.
        cases: title and picture of a few test images.
        position_mean: ``[gh,gw]`` mean patch score of normal test images; None if there were none.
        training: the training images, where they can be listed.
    """

    network: AnomalyDetector
    device: torch.device
    cases: Sequence[tuple[str, Case]]
    position_mean: Tensor | None = None
    training: TrainingPictures | None = None

    @torch.inference_mode()
    def embed(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """One image ``[C,H,W]`` to its embeddings ``[1,C,h,w]`` and class token ``[1,C]``."""
        return self.network.embed(image[None].to(self.device, torch.float32))


@singledispatch
def method_section(head: Head, context: MethodContext) -> Section:
    """Describe what ``head`` learned; without a function of its own, by the scores of normal images."""
    galleries = _by_position({NORMAL_SCORES: context.position_mean})
    return Section(TITLE, f"Head {type(head).__name__}.", galleries=galleries)


@method_section.register
def dpmm_section(head: DPMMHead, context: MethodContext) -> Section:
    """Component weights, and which component each patch belongs to ([DPMM], Fig. 2)."""
    weights, order = head.weights()[head.active].cpu().sort(descending=True)
    assigned = [head.assign(context.embed(case.image)[0])[0, 0].cpu() for _, case in context.cases]
    present, patches = torch.cat([grid.flatten() for grid in assigned]).unique(return_counts=True)
    shown = present[patches.argsort(descending=True, stable=True)][: len(COMPONENT_COLOURS)].tolist()
    heaviest = head.active.cpu()[order][:HEAVIEST].tolist()
    colours = [_hex(COMPONENT_COLOURS[shown.index(k)] if k in shown else OTHER_COLOUR) for k in heaviest]
    axes = ("component, by weight", "mixing weight")
    bars, line = charts.bars(weights[:HEAVIEST].tolist(), *axes, colours), charts.falling(weights.tolist(), *axes)
    pictures = [Picture(f"the {len(heaviest)} heaviest components", bars), Picture("all active components", line)]
    return Section(
        TITLE,
        "A mixture of Gaussians over patch embeddings of normal images. Patches below have the colour of their most "
        f"responsible component, as in the chart of weights, for the {len(shown)} most frequent in these images.",
        {
            "active components": f"{head.n_active} of {len(head.log_weights)}",
            "weight of the heaviest": f"{float(weights[0]):.3f}",
            "concentration α": f"{float(head.concentration):.3g}",
            "EM steps": str(int(head.step)),
        },
        [
            Gallery("Component weights", pictures, "charts"),
            Gallery("Most responsible component", _assignments(context, assigned, shown), "charts"),
        ],
    )


def _assignments(context: MethodContext, assigned: Sequence[Tensor], shown: Sequence[int]) -> list[Picture]:
    """Each case beside the components ``[gh,gw]`` of its patches, as far as they are ``shown``."""
    pictures = []
    for (title, case), grid in zip(context.cases, assigned, strict=True):
        picture = _picture(case.image)
        pair = panels.side_by_side(picture, _assignment_rgb(picture, grid, shown))
        pictures.append(Picture(f"{title}: {case.name}", panels.png(pair)))
    return pictures


@method_section.register
def spatial_ar_section(head: SpatialARHead, context: MethodContext) -> Section:
    """Prediction error by grid position, from calibration and from the test images."""
    calibration = head.position_error[0].cpu() if head.position_error.numel() else None
    error = "mean squared error of normal validation images, which scores are divided by"
    galleries = _by_position({error: calibration, NORMAL_SCORES: context.position_mean})
    parameters = sum(parameter.numel() for parameter in head.parameters())
    return Section(
        TITLE,
        "A causal network predicts each patch embedding from the ones before it. Positions with little context are "
        "harder to predict; calibration makes the scores of normal images alike everywhere.",
        {"direction": head.direction, "parameters": f"{parameters:,}", "batches": f"{int(head.batches_seen):,}"},
        galleries,
    )


@method_section.register
def dino_ad_section(head: DinoADHead, context: MethodContext) -> Section:
    """The normal image each query is compared with."""
    pictures = []
    tokens = head.class_tokens.float()
    for title, case in context.cases:
        similarity = F.normalize(context.embed(case.image)[1].float(), dim=1) @ tokens.T
        index = int(similarity.argmax())
        text = f"support image {index}, similarity {float(similarity[0, index]):.3f}"
        picture = _picture(case.image)
        support = _training_image(context, index)
        if support is not None and _cosine(context.embed(support)[1], tokens[index]) > SAME_VECTOR:
            picture = panels.side_by_side(picture, _picture(support))
            text += f", {context.training.name(index)} (right)"
        pictures.append(Picture(f"{title}: {case.name}; {text}", panels.png(picture)))
    galleries = [Gallery("Query and support image", pictures, "charts")]
    return Section(
        TITLE,
        "Each query is compared with the foreground clusters of the normal image whose class token is most similar.",
        {"normal images": f"{len(tokens):,}", "clusters per image": str(head.n_clusters)},
        galleries,
    )


@method_section.register
def anomaly_dino_section(head: AnomalyDinoHead, context: MethodContext) -> Section:
    """For the most anomalous patch of each case, the nearest patch of the memory bank."""
    pictures = []
    for title, case in context.cases:
        embeddings = context.embed(case.image)[0]
        columns = embeddings.shape[-1]
        place = int(head.score(embeddings).flatten().argmax())
        query = embeddings[0].flatten(1)[:, place]
        distance, row = (float(found[0, 0]) for found in nearest_neighbours(query[None], head.bank))
        picture = _picture(case.image)
        picture = _framed(picture, divmod(place, columns), embeddings.shape[2:])
        text = f"{title}: {case.name}; distance {distance:.3f}"
        found = _reference(head, context, int(row), query, distance)
        if found:
            picture = panels.side_by_side(picture, found[1])
            text += f" to a patch of {found[0]} (right)"
        pictures.append(Picture(text, panels.png(picture)))
    galleries = [Gallery("Most anomalous patch and its nearest normal patch, framed", pictures, "charts")]
    return Section(
        TITLE,
        "The score of a patch is its cosine distance to the nearest patch of normal images.",
        {"patches in the memory bank": f"{len(head.bank):,}", "shots": str(head.shots or "all")},
        galleries,
    )


def _reference(
    head: AnomalyDinoHead, context: MethodContext, row: int, query: Tensor, distance: float
) -> tuple[str, panels.Rgb] | None:
    """Name and picture of the training image that bank ``row`` came from, if that can be told and proves true."""
    patches = context.network.grid_size[0] * context.network.grid_size[1]
    index = row // patches
    if context.training is None or head.views > 1:
        return None
    if head.shots is not None:
        generator = torch.Generator().manual_seed(head.seed)
        keys = torch.rand(len(context.training), generator=generator, dtype=torch.float64)
        kept = keys.argsort()[: head.shots].sort().values
        index = int(kept[index]) if index < len(kept) else len(context.training)
    image = _training_image(context, index)
    if image is None:
        return None
    found = context.embed(image)[0][0].flatten(1)[:, row % patches]
    # A coreset or a foreground mask shifts the rows: the patch must be as near as the bank's row was.
    if abs(1 - _cosine(query, found) - distance) > 1 - SAME_VECTOR:
        return None
    place = divmod(row % patches, context.network.grid_size[1])
    framed = _framed(_picture(image), place, context.network.grid_size)
    return context.training.name(index), framed


def _training_image(context: MethodContext, index: int) -> Tensor | None:
    """``[C,H,W]`` of one image of the fit, None if it cannot be had."""
    if context.training is None or not 0 <= index < len(context.training):
        return None
    image = context.training.image(index)
    return image if image is not None and tuple(image.shape[-2:]) == context.network.image_size else None


def _picture(image: Tensor) -> panels.Rgb:
    """An image ``[C,H,W]`` in the proportions in which the network sees it, which are those of its patches."""
    return panels.grey_rgb(image.float().numpy())


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.float().flatten(), b.float().flatten(), dim=0))


def _by_position(maps: Mapping[str, Tensor | None]) -> list[Gallery]:
    """Maps ``[gh,gw]`` by caption, which is completed by their range; None is left out."""
    pictures = []
    for caption, values in maps.items():
        if values is not None:
            low, high = float(values.min()), float(values.max())
            picture = panels.png(panels.map_rgb(values.numpy(), low, high, "viridis"))
            pictures.append(Picture(f"{caption}: {low:.3g} (dark) to {high:.3g} (bright)", picture))
    return [Gallery("By position", pictures)] if pictures else []


def _assignment_rgb(background: panels.Rgb, component: Tensor, shown: Sequence[int]) -> panels.Rgb:
    """Colour patches ``[gh,gw]`` by their place in ``shown`` over the picture; others are left as they are."""
    grid = np.full(tuple(component.shape), -1)
    for place, index in enumerate(shown):
        grid[component.numpy() == index] = place
    places = _enlarged(grid, background.shape)
    coloured = (0.45 * background + 0.55 * COMPONENT_COLOURS[places]).round().astype(np.uint8)
    return np.where(places[..., None] < 0, background, coloured)


def _framed(picture: panels.Rgb, place: tuple[int, int], grid: Sequence[int]) -> panels.Rgb:
    """Outline the patch at ``(row, column)`` of a grid ``(gh, gw)``."""
    mask = np.zeros(tuple(grid), dtype=bool)
    mask[place] = True
    return panels.contours_rgb(picture, None, _enlarged(mask, picture.shape))


def _enlarged(grid: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Repeat the patches of ``[gh,gw]`` to ``[H,W]``."""
    rows, columns = (np.arange(side) * count // side for side, count in zip(shape, grid.shape, strict=False))
    return grid[rows][:, columns]


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)
