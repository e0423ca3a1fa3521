"""Which names results have in the folders into which a Python program saves them: never that of another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dino_uad.transforms import SaveMapd
from dino_uad.worklist import SAVED, RunStore


class SavedNames:
    """One saver for each folder and map, as ``inference.json`` has: it knows whose the names are that it has given.

    Names that the command line gave in a folder stay their file's: its list there tells them.

    Args:
        savers: those of ``inference.json``.
    """

    def __init__(self, savers: Sequence[SaveMapd]) -> None:
        self._anonymous = {saver.postfixes[0]: saver.anonymous_names for saver in savers}
        self._savers: dict[Path, dict[str, SaveMapd]] = {}
        self._arrays: dict[tuple[Path, str], str] = {}

    def save(self, folder: Path, maps: Mapping[str, Mapping[str, Any]], name: str, digest: str) -> list[Path]:
        """Write the maps of one image.

        Args:
            folder: where to.
            maps: postfix to the item that is saved with it.
            name: of the image.
            digest: of its values, if they came as an array; else empty.

        Returns:
            The files.

        Raises:
            ValueError: another array of this name was saved there.
        """
        place = folder.absolute()
        if digest and self._arrays.setdefault((place, name), digest) != digest:
            raise ValueError(
                f"{folder} has the results of another array called {name!r}; expected a name of its own for each: "
                'detector(array, name="p9"), or a folder of its own'
            )
        if place not in self._savers:
            self._savers[place] = self._of_folder(place)
        saved = [saver(maps[postfix]) for postfix, saver in self._savers[place].items()]
        return [folder / Path(item["pred"].meta["saved_to"]).name for item in saved]

    def _of_folder(self, place: Path) -> dict[str, SaveMapd]:
        savers = {postfix: SaveMapd("pred", place, postfix, anon) for postfix, anon in self._anonymous.items()}
        store = RunStore(place, "")
        for source, row in store.saved():
            for key in SAVED:
                if row.get(key) and Path(source).is_absolute():  # anonymous ones are not
                    for saver in savers.values():
                        saver.reserve(row[key], source)
        store.close()
        return savers
