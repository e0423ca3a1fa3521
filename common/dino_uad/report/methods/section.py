"""The section on what the method learned, chosen by the type of head.

A new method needs no change here: a module of its own beside this one, which ``__init__.py`` imports, registers::

    @method_section.register
    def _(head: MyHead, context: MethodContext) -> Section:
        return Section(TITLE, f"{len(head.bank)} patches.")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from dino_uad.detector import AnomalyDetector
from dino_uad.heads import Head
from dino_uad.report import panels
from dino_uad.report.sections import Gallery, Picture, Section
from dino_uad.report.shown_cases import Case
from dino_uad.report.training import TrainingPictures

TITLE = "What the method learned"
NORMAL_SCORES = "mean patch score of normal test images"


@dataclass(frozen=True)
class MethodContext:
    """Inputs of a method's section.

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
        """One image ``[C,H,W]`` to the embeddings ``[1,C,h,w]`` that the head knows, and its class token ``[1,C]``."""
        embeddings, cls = self.network.embed(image[None].to(self.device, torch.float32))
        return self.network.prepare(embeddings), cls

    @torch.inference_mode()
    def foreground(self, image: Tensor) -> Tensor:
        """The patches ``[1,1,h,w]`` of ``[C,H,W]`` that are scored."""
        return self.network.find_foreground(image[None].to(self.device, torch.float32))


@singledispatch
def method_section(head: Head, context: MethodContext) -> Section:
    """Describe what ``head`` learned; without a function of its own, by the scores of normal images."""
    galleries = by_position({NORMAL_SCORES: context.position_mean})
    return Section(TITLE, f"Head {type(head).__name__}.", galleries=galleries)


def by_position(maps: Mapping[str, Tensor | None]) -> list[Gallery]:
    """Maps ``[gh,gw]`` by caption, which is completed by their range; None is left out."""
    pictures = []
    for caption, values in maps.items():
        if values is not None:
            low, high = float(values.min()), float(values.max())
            picture = panels.png(panels.map_rgb(values.numpy(), low, high, "viridis"))
            pictures.append(Picture(f"{caption}: {low:.3g} (dark) to {high:.3g} (bright)", picture))
    return [Gallery("By position", pictures)] if pictures else []
