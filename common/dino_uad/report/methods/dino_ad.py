"""DINO-AD: which normal image each query is compared with."""

from __future__ import annotations

import torch.nn.functional as F

from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.report import panels
from dino_uad.report.methods.pictures import drawn
from dino_uad.report.methods.section import TITLE, MethodContext, method_section
from dino_uad.report.methods.stored import SAME_VECTOR, cosine, training_image
from dino_uad.report.sections import Gallery, Picture, Section


@method_section.register
def dino_ad_section(head: DinoADHead, context: MethodContext) -> Section:
    """The normal image each query is compared with."""
    pictures = []
    tokens = head.class_tokens.float()
    for title, case in context.cases:
        similarity = F.normalize(context.embed(case.image)[1].float(), dim=1) @ tokens.T
        index = int(similarity.argmax())
        text = f"support image {index}, similarity {float(similarity[0, index]):.3f}"
        picture = drawn(case.image)
        support = training_image(context, index)
        if support is not None and cosine(context.embed(support)[1], tokens[index]) > SAME_VECTOR:
            picture = panels.side_by_side(picture, drawn(support))
            text += f", {context.training.name(index)} (right)"
        pictures.append(Picture(f"{title}: {case.name}; {text}", panels.png(picture)))
    galleries = [Gallery("Query and support image", pictures, "charts")]
    return Section(
        TITLE,
        "Each query is compared with the foreground clusters of the normal image whose class token is most similar.",
        {"normal images": f"{len(tokens):,}", "clusters per image": str(head.n_clusters)},
        galleries,
    )
