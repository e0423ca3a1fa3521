"""NRRD and MetaImage through MONAI's reader, whatever their names: ITK takes none that is not UTF-8."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from monai.data import ITKReader

from dino_uad.transforms.read_files import detached_files, files_of


class AnyNameITKReader(ITKReader):
    """MONAI's ``ITKReader`` of one file."""

    def read(self, data: Sequence[str] | str, **kwargs):
        """Read the file, where its name is not UTF-8 through a link to it."""
        (name,) = (data,) if isinstance(data, str | Path) else data
        absent = [file for file in detached_files(Path(name)) if not file.is_file()]
        if absent:
            raise ValueError(f"the file that holds its values, {absent[0].name}, is missing beside it")
        try:
            with utf8_name(name) as path:
                return super().read(path, **kwargs)
        except RuntimeError as error:
            # ITK appends the operating system's last error, which MetaIO did not have: "No such file or directory".
            raise ValueError(str(error).partition("\nReason:")[0]) from error


@contextmanager
def utf8_name(path: str | os.PathLike[str]) -> Iterator[str]:
    """The path, or if it is not UTF-8 that of a link, beside links to the files that hold its values."""
    name = os.fspath(path)
    try:
        name.encode("utf-8")
        yield name
        return
    except UnicodeEncodeError:
        pass
    source = Path(name).absolute()
    with TemporaryDirectory() as folder:
        link = Path(folder) / f"scan{source.suffix}"
        link.symlink_to(source)
        for other in files_of(source)[1:]:
            beside = Path(folder) / os.path.relpath(other.absolute(), source.parent)
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.symlink_to(other.absolute())
        yield str(link)
