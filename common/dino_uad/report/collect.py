"""What a report needs of an evaluation, gathered image by image in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor

from dino_uad import parallel
from dino_uad.metrics import (
    ScoreHistogram,
    average_precision,
    dice_of_counts,
    group_keys,
    is_anomalous,
    overlap_counts,
    tied_levels,
)
from dino_uad.report.shown_cases import Case, CaseSketch, shrink
from dino_uad.transfer import move_together

PIXEL_BINS = 1 << 16
VOLUME_SIDE = 192
EXAMPLES = 6
FROM_THE_NETWORK = ("pred", "patch_scores", "image_score")


@dataclass(frozen=True)
class Row:
    """The numbers of one image; ``group`` is a key of its patient, the same in every process."""

    name: str
    group: int
    anomalous: bool
    has_mask: bool
    score: float
    average_precision: float
    dice: float
    anomalous_fraction: float
    seconds: float


class Collector:
    """Sums up the outputs of a :class:`~dino_uad.engines.evaluate.DetectorEvaluator`.

    Per image it keeps a :class:`Row` of numbers; of the pixels a histogram of 1 MB; of the pictures at most the
    capacity of its sketches.

    Args:
        threshold: score at and above which a pixel counts as predicted, for the Dice of an image; NaN for none.
        anonymous_names: replace file names by numbers in the order of evaluation.
    """

    def __init__(self, threshold: float = math.nan, anonymous_names: bool = False) -> None:
        self.threshold, self.anonymous_names = threshold, anonymous_names
        self.rows: list[Row] = []
        self.pixels = ScoreHistogram(2, PIXEL_BINS)
        # By group: no two of one patient and kind.
        self.examples: dict[str, dict[int, Case]] = {"normal": {}, "anomalous": {}}
        # Annotated images and volumes by average precision; the others, for want of a mask, by score.
        self.anomalous, self.unmasked, self.normal = CaseSketch(), CaseSketch(), CaseSketch(8)
        self.volumes, self.other_volumes = CaseSketch(3, 1), CaseSketch(3, 1)
        self.position_sum: Tensor | None = None
        self.position_count = 0
        self._aliases: dict[str, str] = {}

    def add(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Add the images of one batch; the slices of a volume come together."""
        for slices in by_volume(_on_the_host(items)):
            middle = {is_anomalous(item): item for item in _from_the_ends(slices)}  # the last of each kind stays
            for item in slices:
                name = self._name(item) + (f", slice {item['slice_number']}" if len(slices) > 1 else "")
                self._add_image(item, name, is_example=item is middle[is_anomalous(item)])
            if len(slices) > 1:
                self._add_volume(slices)

    def gather(self) -> None:
        """Bring everything together on every rank; the identity outside ``torch.distributed``."""
        states = parallel.gather_objects(vars(self))
        vars(self).update(states[0])
        for other in states[1:]:
            self._merge(other)

    def position_mean(self) -> Tensor | None:
        """Mean patch score of normal images by grid position, ``[gh,gw]``."""
        return None if self.position_sum is None else self.position_sum / self.position_count

    def _merge(self, other: Mapping[str, Any]) -> None:
        self.rows += other["rows"]
        self.pixels.merge(other["pixels"])
        for key, cases in other["examples"].items():
            new = {group: case for group, case in cases.items() if group not in self.examples[key]}
            self.examples[key] = dict([*self.examples[key].items(), *new.items()][:EXAMPLES])
        for key in ("anomalous", "unmasked", "normal", "volumes", "other_volumes"):
            getattr(self, key).merge(other[key])
        if other["position_sum"] is not None:
            mine = 0 if self.position_sum is None else self.position_sum
            self.position_sum = mine + other["position_sum"]
            self.position_count += other["position_count"]

    def _add_image(self, item: Mapping[str, Any], name: str, is_example: bool) -> None:
        scores, mask = item["pred"][0].float(), item["label"][0] > 0
        if item["has_mask"]:
            self.pixels.update(scores, mask)
        row = Row(
            name=name,
            group=group_keys([str(item["group"])], 1)[0],
            anomalous=is_anomalous(item),
            has_mask=item["has_mask"],
            score=float(item["image_score"]),
            average_precision=float(average_precision(*tied_levels(scores.flatten(), mask.flatten()))),
            dice=self._dice(overlap_counts(scores >= self.threshold, mask)),
            anomalous_fraction=float(mask.float().mean()),
            seconds=float(item["seconds"]),
        )
        self.rows.append(row)
        if not row.anomalous:
            patch_scores = item["patch_scores"][0].double()
            self.position_sum = patch_scores if self.position_sum is None else self.position_sum + patch_scores
            self.position_count += 1
        self._offer(row, picture_case(item, row), is_example)

    def _offer(self, row: Row, case: Case, is_example: bool) -> None:
        if not row.anomalous:
            self.normal.add(row.score, case)
        elif row.has_mask:
            self.anomalous.add(row.average_precision, case)
        else:
            self.unmasked.add(row.score, case)
        examples = self.examples["anomalous" if row.anomalous else "normal"]
        if is_example and len(examples) < EXAMPLES:
            examples.setdefault(row.group, case)

    def _add_volume(self, slices: Sequence[Mapping[str, Any]]) -> None:
        masked = all(item["has_mask"] for item in slices)
        pixels, counts, highest = ScoreHistogram(2), torch.zeros(3, dtype=torch.long), -math.inf
        for item in slices:  # one at a time: all of them sorted would take many times the volume
            scores, mask = item["pred"][0].float(), item["label"][0] > 0
            pixels.update(scores, mask)
            counts += overlap_counts(scores >= self.threshold, mask)
            highest = max(highest, float(scores.max()))
        precision = float(average_precision(*pixels.counts)) if masked else math.nan
        numbers = {"average precision": precision, "Dice": self._dice(counts), "highest score": highest}
        numbers = {name: value for name, value in numbers.items() if not math.isnan(value)}
        case = volume_case(self._name(slices[0]), slices, numbers, masked)
        if math.isnan(precision):
            self.other_volumes.add(highest, case)
        else:
            self.volumes.add(precision, case)

    def _dice(self, counts: Tensor) -> float:
        """Dice from the counts of :func:`~dino_uad.metrics.overlap_counts`; NaN without a threshold or an anomaly."""
        return float(dice_of_counts(counts)) if counts[2] > 0 and not math.isnan(self.threshold) else math.nan

    def _name(self, item: Mapping[str, Any]) -> str:
        name, group = str(item["name"]), str(item["group"])
        # Volumes are often called flair.nii.gz, one in each patient's folder.
        name = name if group in name else f"{group}/{name}"
        if not self.anonymous_names:
            return name
        # Processes take turns with the numbers, so that no two images share one.
        number = len(self._aliases) * parallel.world_size() + parallel.rank() + 1
        return self._aliases.setdefault(name, f"image {number}")


def _on_the_host(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items with what the network gave of them on the CPU."""
    given = {key: move_together([item[key] for item in items], "cpu") for key in FROM_THE_NETWORK}
    return [{**item, **{key: values[i] for key, values in given.items()}} for i, item in enumerate(items)]


def by_volume(items: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Split a batch into the slices of each volume; a 2-D image is alone."""
    for _, slices in groupby(items, key=lambda item: item["scan"]):
        yield list(slices)


def _from_the_ends(slices: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The slices of a volume, the outer ones first and the middle one last."""
    middle = (len(slices) - 1) / 2
    return [slices[i] for i in sorted(range(len(slices)), key=lambda i: -abs(i - middle))]


def picture_case(item: Mapping[str, Any], row: Row) -> Case:
    """What is kept of one evaluated image."""
    numbers = {"average precision": row.average_precision, "Dice": row.dice, "image score": row.score}
    spacing, factor = item.get("spacing"), item["label"].shape[-1] / shrink(item["label"]).shape[-1]
    return Case(
        name=row.name,
        image=item["image"].half(),
        anomaly_map=shrink(item["pred"])[0].half(),
        label=shrink((item["label"] > 0).float())[0] >= 0.5 if item["has_mask"] else None,
        numbers={key: value for key, value in numbers.items() if not math.isnan(value)},
        spacing=spacing and (spacing[0] * factor, spacing[1] * factor, spacing[2]),
    )


def volume_case(name: str, slices: Sequence[Mapping[str, Any]], numbers: dict[str, float], masked: bool) -> Case:
    """The slices of a volume at their places along the last axis; places that were not evaluated stay empty."""
    indices = [int(item["slice_index"]) for item in slices]
    numbered = [int(item["slice_number"]) for item in slices]
    stride = min(b - a for a, b in pairwise(indices))
    places = [(index - min(indices)) // stride for index in indices]
    maps = [shrink(item["pred"], VOLUME_SIDE).half() for item in slices]
    labels = [shrink((item["label"] > 0).float(), VOLUME_SIDE) >= 0.5 for item in slices]
    images = [shrink(item["image"].mean(dim=0, keepdim=True), VOLUME_SIDE).half() for item in slices]
    spacing = slices[0].get("spacing")
    factor = slices[0]["label"].shape[-1] / maps[0].shape[-1]
    return Case(
        name=name,
        image=_stack(images, places),
        anomaly_map=_stack(maps, places)[0],
        label=_stack(labels, places)[0] if masked else None,
        numbers=numbers,
        spacing=spacing and (spacing[0] * factor, spacing[1] * factor, spacing[2] * stride),
        first_slice=numbered[0],
        stride=stride if numbered[0] < numbered[1] else -stride,
    )


def _stack(planes: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    stacked = planes[0].new_zeros((*planes[0].shape, max(places) + 1))
    for plane, place in zip(planes, places, strict=True):
        stacked[..., place] = plane
    return stacked
