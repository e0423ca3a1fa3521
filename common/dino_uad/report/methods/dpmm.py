"""DPMM: the weights of the components, and where in the pictures each of them is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dino_uad.heads.dpmm import DPMMHead
from dino_uad.report import charts, panels
from dino_uad.report.methods.pictures import drawn, enlarged
from dino_uad.report.methods.section import TITLE, MethodContext, method_section
from dino_uad.report.sections import Gallery, Picture, Section

HEAVIEST = 20
# Okabe and Ito's palette, for the components most frequent in the pictures; bars of others share a grey.
COMPONENT_COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)]
)
OTHER_COLOUR = (190, 190, 190)


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
        picture = drawn(case.image)
        pair = panels.side_by_side(picture, _assignment_rgb(picture, grid, shown))
        pictures.append(Picture(f"{title}: {case.name}", panels.png(pair)))
    return pictures


def _assignment_rgb(background: panels.Rgb, component: Tensor, shown: Sequence[int]) -> panels.Rgb:
    """Colour patches ``[gh,gw]`` by their place in ``shown`` over the picture; others are left as they are."""
    grid = np.full(tuple(component.shape), -1)
    for place, index in enumerate(shown):
        grid[component.numpy() == index] = place
    places = enlarged(grid, background.shape)
    coloured = (0.45 * background + 0.55 * COMPONENT_COLOURS[places]).round().astype(np.uint8)
    return np.where(places[..., None] < 0, background, coloured)


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)
