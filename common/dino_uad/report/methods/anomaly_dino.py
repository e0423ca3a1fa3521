"""AnomalyDINO: the normal patch that the most anomalous patch of a picture is nearest to."""

from __future__ import annotations

import torch
from torch import Tensor

from dino_uad.heads.anomaly_dino import AnomalyDinoHead, nearest_neighbours
from dino_uad.report import panels
from dino_uad.report.methods.pictures import drawn, framed
from dino_uad.report.methods.section import TITLE, MethodContext, method_section
from dino_uad.report.methods.stored import SAME_VECTOR, cosine, training_image
from dino_uad.report.sections import Gallery, Picture, Section


@method_section.register
def anomaly_dino_section(head: AnomalyDinoHead, context: MethodContext) -> Section:
    """For the most anomalous patch of each case, the nearest patch of the memory bank."""
    if head.divided:  # a search would need the other processes, which make no report
        return Section(TITLE, f"The bank is divided over several processes; this one holds {len(head.bank):,} patches.")
    pictures = []
    for title, case in context.cases:
        embeddings = context.embed(case.image)[0]
        columns = embeddings.shape[-1]
        place = int(head.score(embeddings).flatten().argmax())
        query = embeddings[0].flatten(1)[:, place]
        distance, row = (float(found[0, 0]) for found in nearest_neighbours(query[None], head.bank))
        picture = drawn(case.image)
        picture = framed(picture, divmod(place, columns), embeddings.shape[2:])
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
    image = training_image(context, index)
    if image is None:
        return None
    found = context.embed(image)[0][0].flatten(1)[:, row % patches]
    # A coreset or a foreground mask shifts the rows: the patch must be as near as the bank's row was.
    if abs(1 - cosine(query, found) - distance) > 1 - SAME_VECTOR:
        return None
    place = divmod(row % patches, context.network.grid_size[1])
    return context.training.name(index), framed(drawn(image), place, context.network.grid_size)
