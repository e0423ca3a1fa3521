"""What a fitted detector learns from normal validation images: baseline, units, thresholds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dino_uad import parallel
from dino_uad.detector import FALSE_POSITIVE_RATES, AnomalyDetector
from dino_uad.embeddings import flattened
from dino_uad.engines import unpack
from dino_uad.exact import without_autocast
from dino_uad.handlers.scan_tally import ScanTally
from dino_uad.heads import image_score
from dino_uad.metrics import CloserLook, ScoreHistogram, ThresholdAtFPR
from dino_uad.transforms import looks

FILES_SEEN = 24
"""Number of files that are read again for their appearance."""

logger = logging.getLogger(__name__)

Scored = dict[str, Tensor]
"""Result of a batch of validation images: ``raw_scores``, ``foreground``, and the batch's facts of its images."""


@torch.inference_mode()
def calibrate(network: AnomalyDetector, loader: Iterable[dict[str, Tensor]], device: torch.device | str) -> None:
    """Learn from normal validation images what a score means, in two passes over their embeddings.

    The first lets the head collect what its own calibration needs (:meth:`Head.calibrate_batch`), if it
    :attr:`~Head.calibrates`. The second scores them; their raw scores, four bytes a patch, are kept, and looked at
    twice for quantiles that are exact (:class:`~dino_uad.metrics.closer_look.CloserLook`). They give share
    and bound of the image baseline, the table of the units, the thresholds of the map at each of
    :data:`FALSE_POSITIVE_RATES`, once as shares of the foreground (``thresholds``) and once of all pixels
    (``pixel_thresholds``, as published), and the decisions on whole images and scans
    (:class:`~dino_uad.detector.normal_scans.NormalScans`). No anomalous image takes part. Under autocast nothing of it
    loses digits.
    """
    network.eval()
    with without_autocast(torch.device(device)):
        if network.head.calibrates:
            for batch in loader:
                embeddings, cls, mask = unpack(batch, device)
                network.head.calibrate_batch(network.prepare(embeddings), cls, mask)
            network.head.end_calibration()
        scored = [score(network, batch, device) for batch in loader]
        _fit_baseline(network, scored, device)
        _fit_units(network, scored, device)
        _fit_thresholds(network, scored, ScanTally(loader, device), device)
        _fit_seen(network, getattr(loader, "dataset", None))


def _fit_seen(network: AnomalyDetector, dataset: Any) -> None:
    """Spacing, intensities, orientation and kind of some files, read again: embeddings do not tell them."""
    entries = getattr(dataset, "entries", [])
    places = sorted({i * len(entries) // FILES_SEEN for i in range(FILES_SEEN)}) if entries else []
    found = []
    for entry in (entries[place] for place in places):
        try:
            images = [one["image"] for one in flattened(dataset.transform(dict(entry)))]
        except Exception:  # whatever readers raise: the file has been reported where it was embedded
            logger.debug("%s: cannot be looked at again", entry["image"], exc_info=True)
            continue
        if images and "picture" in getattr(images[0], "meta", {}):  # else not read with LoadScand
            look = looks(torch.stack([torch.as_tensor(one) for one in images]), images[0].meta, network.axcodes)
            found.append((*look, str(entry.get("group", entry["image"]))))
    if found:
        values, orientations, groups = zip(*found, strict=True)
        network.normal_scans.seen.fit(torch.stack(values), orientations, groups)


def score(network: AnomalyDetector, batch: dict[str, Tensor], device: torch.device | str) -> Scored:
    """Raw scores of a batch of embeddings, on the CPU, and all else but the embeddings themselves."""
    embeddings, cls, mask = unpack(batch, device)
    if mask is None or network.foreground.mode == "none":
        mask = torch.ones_like(embeddings[:, :1], dtype=torch.bool)
    raw = network.raw_scores(embeddings, cls, mask)
    kept = {key: value for key, value in batch.items() if key not in ("embedding", "cls")}
    return kept | {"raw_scores": raw.float().cpu(), "foreground": mask.cpu()}


def _fit_baseline(network: AnomalyDetector, scored: Sequence[Scored], device: torch.device | str) -> None:
    """The bound and the share, from the baselines and peaks of normal images that have a foreground."""
    found = [torch.zeros(0, 2)]
    for batch in scored:
        raw, foreground = batch["raw_scores"], batch["foreground"]
        peaks = image_score(raw, foreground, network.fewest)
        pairs = torch.stack([network.baseline.measure(raw, foreground), peaks], dim=1)
        found.append(pairs[foreground.flatten(1).any(dim=1)])
    network.baseline.fit(*parallel.gather_rows(torch.cat(found).to(device)).unbind(dim=1))


def _fit_units(network: AnomalyDetector, scored: Sequence[Scored], device: torch.device | str) -> None:
    histogram = ScoreHistogram(1, device=device)
    for values in _above_baseline(network, scored, device):
        histogram.update(values)
    total = histogram.all_reduced()
    total.require_finite()
    (seen,) = total.counts[0].nonzero(as_tuple=True)
    if not len(seen):
        raise ValueError("no patch in the foreground of the normal validation images: nothing to calibrate scores on")
    _, places = network.units.knot_places(total.counts[0, seen])
    closer = CloserLook(total, seen[places.unique()])
    for values in _above_baseline(network, scored, device):
        closer.update(values)
    network.units.fit(*closer.levels())


def _above_baseline(network: AnomalyDetector, scored: Sequence[Scored], device: torch.device | str) -> Iterator[Tensor]:
    """Scores of the foreground's patches, ``[n]`` of each batch."""
    for batch in scored:
        raw, foreground = batch["raw_scores"].to(device), batch["foreground"].to(device)
        yield network.baseline(raw, foreground)[foreground]


def _fit_thresholds(
    network: AnomalyDetector, scored: Sequence[Scored], tally: ScanTally, device: torch.device | str
) -> None:
    inside, everywhere = (ThresholdAtFPR(fprs=FALSE_POSITIVE_RATES, device=device) for _ in range(2))
    for batch, result in _assessed(network, scored, device):
        _count_pixels(network, result, inside, everywhere)
        tally.add(batch, result["image_score"], result["pred"], network.grid_size)
    inside.look_closer()
    everywhere.look_closer()
    for _, result in _assessed(network, scored, device):
        _count_pixels(network, result, inside, everywhere)
    network.thresholds.copy_(inside.compute().to(network.thresholds))
    network.pixel_thresholds.copy_(everywhere.compute().to(network.thresholds))
    network.normal_scans.fit(*tally.gathered(network.grid_size))
    for name, thresholds in (("the foreground", network.thresholds), ("all pixels", network.pixel_thresholds)):
        rates = ", ".join(
            f"{100 * rate:g} %: {threshold:.4g}"
            for rate, threshold in zip(FALSE_POSITIVE_RATES, thresholds.tolist(), strict=True)
        )
        logger.info(f"thresholds at false positive rates, as shares of {name} of normal validation images: {rates}")


def _assessed(
    network: AnomalyDetector, scored: Sequence[Scored], device: torch.device | str
) -> Iterator[tuple[Scored, dict[str, Tensor]]]:
    """Each batch that has images, and what the detector makes of its scores."""
    for batch in scored:
        if len(batch["raw_scores"]):
            yield batch, network.assess(batch["raw_scores"].to(device), batch["foreground"].to(device))


def _count_pixels(
    network: AnomalyDetector, result: dict[str, Tensor], inside: ThresholdAtFPR, everywhere: ThresholdAtFPR
) -> None:
    everywhere.update(result["pred"])
    inside.update(result["pred"][network.inside(result["foreground"])])
