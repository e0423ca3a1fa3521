"""Save the findings of a DICOM scan as DICOM, beside the maps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import SaveImaged
from numpy.typing import NDArray

from dino_uad.errors import raised_here
from dino_uad.files import atomic_path
from dino_uad.transforms.dicom import choose, is_dicom
from dino_uad.transforms.own_results import MARK, is_own_result
from dino_uad.transforms.save import SaveMapd
from dino_uad.transforms.threshold import NUMBERS
from dino_uad.transforms.unscored import nothing_scored
from dino_uad.wording import visible

KINDS = ("seg", "sr")

logger = logging.getLogger(__name__)


class SaveDicomd(SaveImaged):
    """Writes ``NAME_findings_seg.dcm`` and ``NAME_findings_sr.dcm`` of scans that came as DICOM; others pass.

    A DICOM Segmentation with a segment for each finding and a structured report (TID 1500) with their measurements,
    which refer to the source series and take over its patient and study, as the standard asks for: viewers and archives
    file them with the scan. Without a finding there is a report only; of a scan of which nothing was scored, nothing.
    Where slices are not evenly spaced, or headers lack what the standard asks for, there is neither, and ``notes`` of
    the item say why. They carry the mark by which ``is_own_result`` knows them; what an earlier run wrote and this one
    does not is removed. The paths are put into the item's ``saved``. Place it after ``ThresholdMapd``, whose findings
    and their numbers it needs. It is a ``SaveImaged``, because MONAI Label takes those out of postprocessing.

    Args:
        keys: the label map, a MetaTensor whose meta data came from ``LoadScand``.
        output_dir: folder; made when needed.
        method: what found the findings: the bundle's name.
        anonymous_names: name files by a digest of the path. The objects themselves always tell the patient.
        enabled: False leaves them out. The bundles do so with ``anonymous_names``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        method: str,
        anonymous_names: bool = False,
        enabled: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_dir=output_dir, print_log=False, allow_missing_keys=allow_missing_keys)
        self.names = SaveMapd(self.keys, output_dir, "findings", anonymous_names)
        self.method = method
        self.enabled = enabled

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        if nothing_scored(result):
            return result
        for key in self.key_iterator(result):
            image = result[key]
            path = Path(image.meta["filename_or_obj"])
            if not self.enabled or image.is_floating_point() or not (path.is_dir() or is_dicom(path)):
                continue
            objects, why = self._objects_or_why(result, image, path)
            if why:
                note = f"no DICOM of its findings is written: {why}"
                logger.warning("%s: %s", path.name, note)
                result["notes"] = [*result.get("notes", []), note]
            for kind in KINDS:
                target = self.names.path(str(path), "findings", f"_{kind}.dcm")
                if kind not in objects:
                    if target.is_file() and is_own_result(target):
                        target.unlink()  # of an earlier run: it is not what this one found
                    continue
                objects[kind].ManufacturerModelName = f"{MARK} ({self.method})"[:64]  # as much as the standard allows
                with atomic_path(target) as temporary:
                    objects[kind].save_as(temporary)
                result["saved"] = {**result.get("saved", {}), f"findings_{kind}": str(target)}
                logger.info("saved %s", visible(str(target)))
        return result

    def discard(self, source: str) -> None:
        """Remove what former runs saved of a file that cannot be scored any more."""
        self.names.discard(source, [f"_{kind}.dcm" for kind in KINDS])

    def reserve(self, name: str, source: str) -> None:
        """Keep the name of a result that an earlier run saved for the file ``source``, and of the other beside it."""
        for kind in KINDS:
            if name.endswith(ending := f"_{kind}.dcm"):
                for each in KINDS:
                    self.names.reserve(f"{name.removesuffix(ending)}_{each}.dcm", source)

    def claim_names(self, claim: Callable[[str, str], str]) -> None:
        """Ask for new names, as :class:`SaveMapd` does."""
        self.names.claim_names(claim)

    def _objects_or_why(
        self, item: Mapping[Hashable, Any], image: MetaTensor, path: Path
    ) -> tuple[dict[str, Any], str]:
        """DICOM objects by kind (``seg``, ``sr``) and ``""``, or ``{}`` and the reason why nothing can be written."""
        if why := _no_highdicom():
            return {}, why
        if uneven := image.meta.get("uneven_slices"):
            return {}, uneven
        try:
            return self._objects(item, np.asarray(image.meta["scan_affine"], float), path), ""
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            if not isinstance(error, ValueError) and raised_here(error):
                raise  # our own mistake, not the file's
            # An export that leaves out what the standard asks for: its maps are written all the same.
            logger.debug("%s: no DICOM of its findings", path.name, exc_info=True)
            return {}, str(error)

    def _objects(self, item: Mapping[Hashable, Any], affine: NDArray, path: Path) -> dict[str, Any]:
        """Segmentation, if there is a finding, and report."""
        from dino_uad.dicom_output import SourceScan, findings_report, findings_segmentation

        labels, findings = item[NUMBERS], item["findings"]
        frames = choose(path, item.get("series")).frames  # those that the scan was read from, of which it has been told
        source = SourceScan.of(frames, labels.shape, affine)
        if not findings:
            return {"sr": findings_report(source, findings, self.method, None)}
        segmentation = findings_segmentation(source, labels, affine, findings, self.method)
        return {"seg": segmentation, "sr": findings_report(source, findings, self.method, segmentation)}


def _no_highdicom() -> str:
    """Why highdicom cannot be used, or ``""``."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        if error.name == "highdicom":
            return "highdicom is not installed (pip install highdicom)"
        # MONAI Label's environment, for one, has a pydicom that is too old for it.
        return f"the highdicom that is installed cannot be imported ({error}); expected a version that fits pydicom's"
    return ""
