"""Writes the scans that tests of data and transforms read."""

from pathlib import Path

import itk
import nibabel as nib
import numpy as np

OBLIQUE = np.array([[0.9, -0.3, 0.2, -40.0], [0.4, 0.8, 0.1, -60.0], [-0.3, 0.1, 2.4, 20.0], [0, 0, 0, 1]])
ORIENTATIONS = ("RAS", "LPS", "PIR", "RPI", "oblique")


def volume(shape: tuple[int, ...] = (12, 10, 7), seed: int = 0) -> np.ndarray:
    """A volume of distinct positive values, so that any permutation or flip shows."""
    return np.random.default_rng(seed).permutation(np.arange(1, np.prod(shape) + 1)).reshape(shape).astype(np.float32)


def affine_of(orientation: str) -> np.ndarray:
    """An anisotropic affine whose axes run as the letters say."""
    if orientation == "oblique":
        return OBLIQUE
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (letter, spacing) in enumerate(zip(orientation, (0.7, 1.1, 3.0), strict=True)):
        world = ["RL", "AP", "SI"].index(next(pair for pair in ("RL", "AP", "SI") if letter in pair))
        affine[world, axis] = spacing if letter in "RAS" else -spacing
    affine[:3, 3] = (-11.5, 23.25, 5.0)
    return affine


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def write_itk(path: Path, array: np.ndarray, spacing=(0.5, 0.75, 2.0), origin=(1.0, 2.0, 3.0)) -> Path:
    """Write ``[X,Y,Z]`` as NRRD, MHA or MHD."""
    image = itk.image_from_array(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    itk.imwrite(image, str(path))
    return path


def write_dicom(folder: Path, array: np.ndarray, spacing=(0.5, 0.75, 2.0), origin=(1.0, 2.0, 3.0), uid="1.2.3") -> Path:
    """Write int16 ``[X,Y,Z]`` as an axial DICOM series with a patient name that must not leak."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(array.shape[2]):
        image = itk.image_from_array(np.ascontiguousarray(array[:, :, k : k + 1].T.astype(np.int16)))
        position = [origin[0], origin[1], origin[2] + k * spacing[2]]
        image.SetSpacing(spacing)
        image.SetOrigin(position)
        tags = image.GetMetaDataDictionary()
        tags["0008|0060"], tags["0010|0010"] = "MR", "Doe^Jane"
        tags["0020|000d"], tags["0020|000e"], tags["0020|0013"] = uid, f"{uid}.1", str(k + 1)
        tags["0018|0050"] = str(spacing[2])
        image.SetMetaDataDictionary(tags)
        encoder = itk.GDCMImageIO.New()
        encoder.KeepOriginalUIDOn()
        writer = itk.ImageFileWriter.New(image, FileName=str(folder / f"{uid}-{k:03d}.dcm"))
        writer.SetImageIO(encoder)
        writer.UseInputMetaDataDictionaryOn()
        writer.Update()
    return folder
