"""DINO-AD: which normal images each query is compared with."""

from __future__ import annotations

from dino_uad.heads.dino_ad import DinoADHead
from dino_uad.report import panels
from dino_uad.report.methods.pictures import drawn
from dino_uad.report.methods.section import TITLE, MethodContext, method_section
from dino_uad.report.methods.stored import SAME_VECTOR, cosine, training_image
from dino_uad.report.sections import Gallery, Picture, Section

SIMILARITY = {"mean": "a patch counts by its mean similarity to them", "max": "a patch counts by the most similar one"}


@method_section.register
def dino_ad_section(head: DinoADHead, context: MethodContext) -> Section:
    """The first of the normal images that each query is compared with."""
    pictures = []
    tokens = head.class_tokens.float()
    for title, case in context.cases:
        token = context.embed(case.image)[1]
        index = int(head.supports(token)[0, 0])
        text = f"support image {index}, similarity {cosine(token, tokens[index]):.3f}"
        picture = drawn(case.image)
        support = training_image(context, index)
        if support is not None and cosine(context.embed(support)[1], tokens[index]) > SAME_VECTOR:
            picture = panels.side_by_side(picture, drawn(support))
            text += f", {context.training.name(index)} (right)"
        pictures.append(Picture(f"{title}: {case.name}; {text}", panels.png(picture)))
    galleries = [Gallery("Query and support image", pictures, "charts")]
    return Section(
        TITLE,
        f"Each query is compared with the foreground clusters of {_supports(head)}: {SIMILARITY[head.similarity]}.",
        {"normal images": f"{len(tokens):,}", "clusters per image": str(head.n_clusters)},
        galleries,
    )


def _supports(head: DinoADHead) -> str:
    if head.support == "random":
        return "a normal image that is drawn at random"
    if head.n_support == 1:
        return "the normal image whose class token is most similar"
    return f"the {head.n_support} normal images whose class tokens are most similar, of which the first is shown"
