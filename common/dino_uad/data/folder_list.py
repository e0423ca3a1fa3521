"""The one function the bundle configs call for their data: ``datalist(dataset_dir, split)``."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dino_uad.data.brightness import warn_dark
from dino_uad.data.case import LAYOUTS, Options, Understood
from dino_uad.data.cases import list_images, understand
from dino_uad.data.scan_list import ScanList
from dino_uad.data.series import chosen_series
from dino_uad.data.summary import as_text, as_values, passed_over
from dino_uad.data.unread import unread_images
from dino_uad.data.verify import check_sizes, readable, refuse_blank
from dino_uad.settings import require_choice
from dino_uad.unequal_work import by_first_rank

SPLITS = ("train", "valid", "test", "all")
ERRORS = ("raise", "skip")

logger = logging.getLogger(__name__)


@by_first_rank
def datalist(
    dataset_dir: str | Path,
    split: str = "train",
    *,
    normal_only: bool = False,
    pattern: str = "*",
    kind: str | None = None,
    normal: str | Sequence[str] | None = None,
    mask_pattern: str | None = None,
    image_pattern: str | None = None,
    group_pattern: str | None = None,
    valid_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
    series: str | None = None,
    on_error: str = "raise",
    anonymous_names: bool = False,
    anomalous_labels: Sequence[int] | None = None,
) -> list[dict]:
    """List the images of one split of a data set (layouts: see :data:`dino_uad.data.case.LAYOUTS`).

    Each item has ``image`` (path), ``anomalous`` (0 or 1), ``group`` (the patient where known) and, for anomalous
    images with a mask, ``label`` (path, or a list of the parts of one annotation), beside it the ``anomalous_labels``
    that were given, by which ``LoadScand`` reads it. An absent label means that nothing is anomalous, or, where
    ``anomalous`` is 1, that the data set has no masks.

    *Splits.* Folders named train, valid (val) and test decide. Without a valid folder, ``valid_fraction`` of the
    groups in train is drawn, seeded. Without any split folder, train, valid and test are drawn by group; patients
    with an anomalous picture always go to test. Training never lists an anomalous picture, nor an anomalous volume
    without mask; of those with a mask, transforms leave the annotated slices out.

    For ``"all"`` (inference) every image is listed, also in formats that are not read: loading says so, and the list of
    results. Masks, classes and results of this package are of no concern. What is passed over and may be a scan is
    known to the list (:class:`~dino_uad.data.scan_list.ScanList`).

    Under ``torch.distributed`` every rank calls it, and the first one reads for all.

    Args:
        dataset_dir: folder of the data set; for ``split="all"`` also a single image.
        split: "train", "valid", "test", or "all" (every image; for inference).
        normal_only: list only what training may use (normal images and annotated volumes), e.g. to select a model and
            to calibrate thresholds.
        pattern: shell pattern for image file names or paths, e.g. ``"*t2f*"`` for one of several sequences.
        kind: "2d" or "3d" where the folder holds both pictures and volumes.
        normal: names or shell patterns of the folders (or files) of normal images, where words do not tell; several
            with commas. Other folders beside them are anomalous.
        mask_pattern: shell pattern of the masks, where names do not tell or several masks go with an image; files that
            only look like masks are passed over, so that "none" ignores all masks. Several patterns, with commas, join
            an image's masks to one.
        image_pattern: shell pattern of files that are images although a name or their few values say mask.
        group_pattern: regular expression that finds the patient in an image's path below ``dataset_dir``.
        valid_fraction: share of the groups in a drawn validation split.
        test_fraction: share of the groups in a drawn test split.
        seed: of the drawn splits.
        series: shell pattern that chooses among several stacks in one DICOM folder: phases, b-values, a localiser.
        on_error: "raise" checks sizes from headers now ("train" those of all splits) and, unless every image is listed
            for inference, DICOM folders of several stacks, and leaves other errors to loading; "skip" reads every file
            now and leaves the bad ones out, named in the log.
        anonymous_names: log numbers only, no name of a file or patient.
        anomalous_labels: values of the masks that mark anomalies, such as ``[2]``, where others are organs; None for
            all above 0. An image whose mask has none of them is normal.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, pictures mixed with volumes, duplicate names, masks or classes that are not understood,
            mask blank or of another size, no mask with any of the ``anomalous_labels``, nothing in the split.
    """
    require_choice("split", split, SPLITS)
    require_choice("on_error", on_error, ERRORS)
    root = Path(os.path.expanduser(dataset_dir))
    options = Options.among(locals())
    if split == "all" and root.is_file():
        return chosen_series([{"image": str(root), "anomalous": 0, "group": root.stem}], series, check=False)
    everything = split == "all"
    # Inference takes every image as it is; which of them are normal only masks and folder names tell.
    listed = everything and not normal_only
    understood = list_images(root, options) if listed else understand(root, options, splits=not everything)
    cases = [case for case in understood.cases if split in ("all", case.split)]
    if normal_only or split == "train":
        cases = [case for case in cases if case.trainable]
    _tell(understood, split, named=not anonymous_names)
    items = chosen_series([case.as_dict() for case in cases], series, check=on_error == "raise" and not listed)
    items += unread_images(understood, options) if listed else []
    if on_error == "skip":
        items = readable(items)
    else:  # a fit is not begun that could not be evaluated: it looks at the masks of all splits, by their headers
        check_sizes([case.as_dict() for case in understood.cases] if split == "train" else items)
        refuse_blank(items)
    if not items:
        raise ValueError(f"{root}: nothing left in split {split!r}{' (normal only)' if normal_only else ''}; {LAYOUTS}")
    if split == "train":
        warn_dark(items)
    return ScanList(items, understood.passed, [case.image for case in understood.cases]) if listed else items


def _tell(understood: Understood, split: str, named: bool) -> None:
    """Log what was understood: the whole table before a fit, one line for the other splits, or without names."""
    if split == "train" and named:
        logger.info("%s", as_text(as_values(understood)))
        return
    counts = Counter(case.anomalous for case in understood.cases if split in ("all", case.split))
    logger.info("%s: %s: %d normal, %d anomalous", understood.root, split, counts[False], counts[True])
    if split == "all" and named and understood.doubt:  # nothing else tells a calibration what its numbers rest on
        logger.warning("%s", understood.doubt)
    if not named:
        return
    if split == "all":
        for reason, files in passed_over(understood.passed).items():
            logger.info("passed over: %d %s (such as %s)", files["count"], reason, files["examples"][0])
    for note in understood.notes:
        logger.warning("%s: %s", understood.root, note)
