"""The layouts of data sets that people have, as file names, and what must be made of each; docs show the same table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from scans import write_dicom, write_itk

SIDE = 16


@dataclass(frozen=True)
class Layout:
    """Files of a data set, and what is made of them.

    Args:
        files: paths; ``name = mask`` writes a mask with a mark, ``name = blank`` one without, ``name = dicom`` a
            series, ``name = text ...`` that text.
        images: how many images are understood, normal and anomalous.
        masks: how many of them have a mask.
        patients: how many.
        error: instead, what the error says.
        options: of ``datalist``.
    """

    files: tuple[str, ...]
    images: tuple[int, int] = (0, 0)
    masks: int = 0
    patients: int = 0
    error: str = ""
    options: tuple[tuple[str, str], ...] = ()


def _each(*names: str, numbers=range(1, 7)) -> tuple[str, ...]:
    return tuple(name.format(k) for k in numbers for name in names)


LAYOUTS = {
    "BMAD": Layout(
        (
            *_each("train/good/p{}_1.png", "valid/good/img/v{0}_1.png", "valid/good/label/v{0}_1.png = blank"),
            *_each("test/Ungood/img/q{0}_7.png", "test/Ungood/label/q{0}_7.png = mask", "test/good/img/g{0}_3.png"),
        ),
        (18, 6),
        12,
        24,
    ),
    "MVTec": Layout(
        (
            *_each("train/good/00{}.png", "test/good/10{}.png"),
            *_each("test/crack/20{0}.png", "ground_truth/crack/20{0}_mask.png = mask"),
        ),
        (12, 6),
        6,
        18,
    ),
    "LiTS": Layout(_each("volume-{0}.nii.gz", "segmentation-{0}.nii.gz = mask"), (0, 6), 6, 6),
    "MSD": Layout(
        (
            *_each("imagesTr/liver_{0}.nii.gz", "labelsTr/liver_{0}.nii.gz = mask"),
            *_each("imagesTs/liver_{0}.nii.gz", numbers=(7, 8)),
            "dataset.json",
        ),
        (0, 6),
        6,
        6,
    ),
    "nnU-Net": Layout(
        _each("imagesTr/ms_00{0}_0000.nii.gz", "imagesTr/ms_00{0}_0001.nii.gz", "labelsTr/ms_00{0}.nii.gz = mask"),
        (0, 6),
        6,
        6,
        options=(("pattern", "*_0000*"),),
    ),
    "BraTS 2023": Layout(
        _each(
            *(f"BraTS-GLI-0000{{0}}-000/BraTS-GLI-0000{{0}}-000-{end}" for end in ("t1c.nii.gz", "t2f.nii.gz")),
            "BraTS-GLI-0000{0}-000/BraTS-GLI-0000{0}-000-seg.nii.gz = mask",
        ),
        (0, 6),
        6,
        6,
        options=(("pattern", "*t2f*"),),
    ),
    "BIDS derivatives": Layout(
        (
            "dataset_description.json",
            *_each(
                "sub-0{0}/anat/sub-0{0}_T1w.nii.gz",
                "derivatives/manual/sub-0{0}/anat/sub-0{0}_space-T1w_label-lesion_mask.nii.gz = mask",
                "derivatives/fmriprep/sub-0{0}/anat/sub-0{0}_desc-preproc_T1w.nii.gz",
            ),
        ),
        (0, 6),
        6,
        6,
    ),
    "Kaggle class folders": Layout(
        _each(*(f"Training/{name}/Tr-{name[:2]}_{{0}}.jpg" for name in ("glioma", "meningioma", "notumor")))
        + _each(*(f"Testing/{name}/Te-{name[:2]}_{{0}}.jpg" for name in ("glioma", "meningioma", "notumor"))),
        (12, 24),
        0,
        36,
    ),
    "TotalSegmentator": Layout(
        _each(
            "s000{0}/ct.nii.gz",
            "s000{0}/segmentations/liver.nii.gz = mask",
            "s000{0}/segmentations/heart.nii.gz = mask",
        ),
        (6, 0),
        0,
        6,
        options=(("mask_pattern", "none"),),
    ),
    "KiTS": Layout(_each("case_0000{0}/imaging.nii.gz", "case_0000{0}/segmentation.nii.gz = mask"), (0, 6), 6, 6),
    "ACDC": Layout(
        _each(
            "training/patient00{0}/patient00{0}_4d.nii.gz",
            "training/patient00{0}/patient00{0}_frame01.nii.gz",
            "training/patient00{0}/patient00{0}_frame01_gt.nii.gz = mask",
        ),
        (0, 6),
        6,
        6,
        options=(("pattern", "*frame*"),),
    ),
    "MSSEG": Layout(
        _each(
            "Patient_0{0}/Preprocessed_Data/FLAIR_preprocessed.nii.gz",
            *(f"Patient_0{{0}}/Masks/{name}.nii.gz = mask" for name in ("Consensus", "ManualSegmentation_1")),
        ),
        (0, 6),
        6,
        6,
        options=(("mask_pattern", "*Consensus*"),),
    ),
    "BUSI": Layout(
        _each(
            *("benign/benign ({0}).png", "benign/benign ({0})_mask.png = mask"),
            *("benign/benign ({0})_mask_1.png = mask 10", "normal/normal ({0}).png"),
            "normal/normal ({0})_mask.png = blank",
        ),
        (6, 6),
        12,
        12,
    ),
    "COVID-QU": Layout(
        _each(
            *(
                f"Infection Segmentation Data/{split}/{name}/{folder}/{name[:3]}_{split}{{0}}.png{what}"
                for split in ("Train", "Val", "Test")
                for name, mark in (("COVID-19", " = mask"), ("Normal", " = blank"))
                for folder, what in (("images", ""), ("infection masks", mark), ("lung masks", " = mask"))
            )
        ),
        (18, 18),
        36,
        36,
        options=(("mask_pattern", "*infection*"),),
    ),
    "LGG (Kaggle)": Layout(
        _each(
            *(f"kaggle_3m/TCGA_CS_494{{0}}/TCGA_CS_494{{0}}_{k}.tif" for k in (1, 2)),
            "kaggle_3m/TCGA_CS_494{0}/TCGA_CS_494{0}_1_mask.tif = blank",
            "kaggle_3m/TCGA_CS_494{0}/TCGA_CS_494{0}_2_mask.tif = mask",
        )
        + ("kaggle_3m/data.csv",),
        (6, 6),
        12,
        6,
    ),
    "CHAOS": Layout(
        _each(
            "CT/{0}/DICOM_anon/ = dicom",
            "CT/{0}/Ground/liver_GT_000.png = mask",
            "CT/{0}/Ground/liver_GT_001.png = mask",
        ),
        (6, 0),
        0,
        6,
        options=(("mask_pattern", "none"),),
    ),
}

REFUSED = {
    "nnU-Net": r"two images of one name: imagesTr/ms_001_0000.*imagesTr/ms_001_0001.*pattern",
    "BraTS 2023": r"two images of one name: .*t1c.*t2f.*pattern",
    "ACDC": r"patient001_4d.nii.gz has no mask, but .*patient001_frame01.nii.gz of the same case.*pattern",
    "MSSEG": r"several masks for .*FLAIR_preprocessed.*Consensus.nii.gz, .*ManualSegmentation_1.nii.gz.*mask_pattern",
    "COVID-QU": r"several masks for .*infection masks/COV_Test1.png, .*lung masks/COV_Test1.png.*infection masks/\*",
    "TotalSegmentator": r"several masks for s0001/ct\.nii\.gz.*mask_pattern none",
    "CHAOS": r"liver_GT_000\.png.*mask.*picture.*volume.*mask_pattern none",
}
"""Layouts that need an option, and what is said without it."""


def write(root: Path, files: Sequence[str]) -> Path:
    """Write files of a layout: noise, or masks, of one size; ``= mask 9`` marks rows 9 to 13, not 4 to 8."""
    for seed, line in enumerate(files):
        name, _, what = line.partition(" = ")
        what, _, at = what.partition(" ")
        text, at = (at.replace("|", "\n"), 4) if what == "text" else ("{}", int(at or 4))
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(seed).integers(20, 255, (SIDE, SIDE, 4)).astype(np.uint8)
        if what in ("mask", "blank"):
            values[:] = 0
            values[at : at + 5, 4:9] = (
                255 if what == "mask" and name.endswith((".png", ".jpg", ".gif", ".tif", ".bmp")) else what == "mask"
            )
        if what == "dicom":
            write_dicom(path, values.astype(np.float32), uid=f"1.2.{seed + 1}")
        elif name.endswith((".nrrd", ".mha", ".mhd")):
            write_itk(path, values.astype(np.int16))
        elif name.endswith((".nii", ".nii.gz")):
            nib.save(nib.Nifti1Image(values.astype(np.int16), np.eye(4)), path)
        elif name.endswith((".png", ".jpg", ".JPG", ".jpeg", ".gif", ".tif", ".bmp")):
            Image.fromarray(values[..., 0]).save(path)
        else:
            path.write_text(text)
    return root


def table() -> list[str]:
    """The rows of the table of roles in common/docs/data_layouts.md; tests hold each of them."""
    rows = ["| data set | files | normal | anomalous | masks | patients | option |", "|---|---|---|---|---|---|---|"]
    for name, layout in LAYOUTS.items():
        names = [line.partition(" = ")[0] for line in layout.files]
        shown = {re.sub(r"\d", "", name): name for name in reversed(names)}
        shown = ", ".join(f"`{name}`" for name in reversed(shown.values()))
        option = ", ".join(f"`{key}={value}`" for key, value in layout.options)
        numbers = " | ".join(map(str, (*layout.images, layout.masks, layout.patients)))
        rows.append(f"| {name} | {shown} | {numbers} | {option} |")
    return rows
