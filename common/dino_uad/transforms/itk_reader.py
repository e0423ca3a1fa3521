"""NRRD and MetaImage through MONAI's reader, whatever their names: ITK takes none that is not UTF-8, or ends in MHA."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from monai.data import ITKReader

from dino_uad.findings import NO_SPACING
from dino_uad.transforms.read_files import detached_files, files_of
from dino_uad.transforms.units import MM_PER_UNIT, in_millimetres, nrrd_unit, states_spacing


class AnyNameITKReader(ITKReader):
    """MONAI's ``ITKReader`` of one file."""

    def read(self, data: Sequence[str] | str, **kwargs):
        """Read the file as float32, where ITK does not take its name through a link to it.

        Raises:
            ValueError: its values are missing or damaged, or a voxel has several.
        """
        (name,) = (data,) if isinstance(data, str | Path) else data
        absent = [file for file in detached_files(Path(name)) if not file.is_file()]
        if absent:
            raise ValueError(f"the file that holds its values, {absent[0].name}, is missing beside it")
        self._mm_per_unit, self._stated = nrrd_unit(Path(name)), states_spacing(Path(name))
        import itk

        try:
            with utf8_name(name) as path:
                _require_one_value(path)
                # Whatever type it has: ITK's Python knows some only (no signed bytes, no signed 64 bits).
                return super().read(path, **{"pixel_type": itk.F, **kwargs})
        except RuntimeError as error:
            # ITK appends the operating system's last error, which MetaIO did not have: "No such file or directory".
            raise ValueError(str(error).partition("\nReason:")[0]) from error

    def _get_meta_dict(self, img) -> dict:
        # A header's own fields come first: one of them may be called like what we ask for.
        no_spacing = "" if self._stated else "its header states no voxel sizes"
        said = {MM_PER_UNIT: self._mm_per_unit, NO_SPACING: no_spacing, "picture": False}
        return super()._get_meta_dict(img) | said

    def _get_affine(self, img, lps_to_ras: bool = True):
        return in_millimetres(super()._get_affine(img, lps_to_ras), self._mm_per_unit)


def _require_one_value(path: str) -> None:
    """Raise ValueError where a header says that each voxel has several values."""
    header = itk_header(path)
    if header is None:
        return  # reading says what is wrong
    count = header.GetNumberOfComponents()
    if count > 1:
        kind = header.GetPixelTypeAsString(header.GetPixelType())
        raise ValueError(
            f"each voxel has {count} values ({kind} of {header.GetComponentTypeAsString(header.GetComponentType())}: "
            "colours, vectors, time points or layers of a segmentation); expected one. Save the channel or layer that "
            "you mean as a volume of its own"
        )


def itk_header(path: str | os.PathLike[str]) -> Any:
    """ITK's ``ImageIOBase`` of a file, its header read; None where ITK knows no format for it."""
    import itk

    with utf8_name(path) as readable:
        header = itk.ImageIOFactory.CreateImageIO(readable, itk.CommonEnums.IOFileMode_ReadMode)
        if header is not None:
            header.SetFileName(readable)
            header.ReadImageInformation()
    return header


@contextmanager
def utf8_name(path: str | os.PathLike[str]) -> Iterator[str]:
    """The path; if it is not UTF-8, or ends in capitals, that of a link, beside links to the files with its values."""
    name = os.fspath(path)
    source = Path(name).absolute()
    if name == name.encode("utf-8", "replace").decode() and source.suffix == source.suffix.lower():
        yield name
        return
    with TemporaryDirectory() as folder:
        link = Path(folder) / f"scan{source.suffix.lower()}"
        link.symlink_to(source)
        for other in files_of(source)[1:]:
            beside = Path(folder) / os.path.relpath(other.absolute(), source.parent)
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.symlink_to(other.absolute())
        yield str(link)
