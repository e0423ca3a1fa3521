"""AnomalyDINO: the normal patch that the most anomalous patch of a picture is nearest to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dino_uad.heads.anomaly_dino import AnomalyDinoHead
from dino_uad.report import panels
from dino_uad.report.methods.pictures import drawn, framed
from dino_uad.report.methods.section import TITLE, MethodContext, method_section
from dino_uad.report.methods.stored import SAME_VECTOR, training_image
from dino_uad.report.sections import Gallery, Picture, Section


@method_section.register
def anomaly_dino_section(head: AnomalyDinoHead, context: MethodContext) -> Section:
    """For the most anomalous patch of each case, the nearest patch of the memory bank."""
    if head.divided:  # a search would need the other processes, which make no report
        return Section(TITLE, f"The bank is divided over several processes; this one holds {len(head.bank):,} patches.")
    pictures = []
    for title, case in context.cases:
        embeddings, cls = context.embed(case.image)
        columns = embeddings.shape[-1]
        place = int(head.score(embeddings, cls, context.foreground(case.image)).flatten().argmax())
        query = embeddings[0].flatten(1)[:, place]
        distance, row = head.nearest(query, cls[0])
        picture = drawn(case.image)
        picture = framed(picture, divmod(place, columns), embeddings.shape[2:])
        text = f"{title}: {case.name}; distance {distance:.3f}"
        found = _reference(head, context, row, query, distance)
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
    if context.training is None or head.views > 1 or not len(head.ends):
        return None
    index = int(torch.searchsorted(head.ends, row, right=True))
    if head.shots is not None:
        generator = torch.Generator().manual_seed(head.seed)
        keys = torch.rand(len(context.training), generator=generator, dtype=torch.float64)
        kept = keys.argsort()[: head.shots].sort().values
        index = int(kept[index]) if index < len(kept) else len(context.training)
    image = training_image(context, index)
    if image is None:
        return None
    similarity = F.normalize(context.embed(image)[0][0].flatten(1).float(), dim=0).T @ F.normalize(query.float(), dim=0)
    # Were it another image than the bank's, its nearest patch would not be as near as the bank's row was.
    near = (1 - similarity - distance).abs()
    if near.min() > 1 - SAME_VECTOR:
        return None
    place = divmod(int(near.argmin()), context.network.grid_size[1])
    return context.training.name(index), framed(drawn(image), place, context.network.grid_size)
