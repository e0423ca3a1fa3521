"""Command line verbs of the weight store: ``python -m dino_uad weights list | fetch NAME | path NAME``."""

from __future__ import annotations

from typing import Any

from dino_uad.backbones.weights.registry import SOURCES, WeightSource
from dino_uad.backbones.weights.store import cache_folder, fetch, locate, resolve


class WeightCommands:
    """Backbone weights on this machine."""

    def list(self) -> dict[str, Any]:
        """Every backbone with the state of its weights and their licence."""
        width = max(map(len, SOURCES))
        print(f"cache folder: {cache_folder()}")
        for name, source in SOURCES.items():
            print(f"{name:{width}}  {source.licence:14}  {_state(source)}")
        weights = {
            name: {"licence": source.licence, "path": locate(name), "gated": source.page is not None}
            for name, source in SOURCES.items()
        }
        return {"cache_folder": cache_folder(), "weights": weights}

    def fetch(self, name: str) -> str:
        """Download the weights of a backbone unless they are here, verify them, and print their path."""
        resolve(name)
        return str(fetch(name))

    def path(self, name: str) -> str:
        """Path of the weights of a backbone; an error if they are not on this machine."""
        found = locate(name)
        if found is None:
            raise FileNotFoundError(
                f"{name}: {_state(SOURCES[name])}; looked in {cache_folder()}. Run `python -m dino_uad weights fetch "
                f"{name}`, or set DINO_UAD_WEIGHTS to the folder that has it"
            )
        return str(found)


def _state(source: WeightSource) -> str:
    found = locate(source.name)
    if found:
        return f"here: {found}"
    if source.url is None:
        return f"gated: request at {source.page}, save as {source.file_names[0]}"
    return "not here: fetched on first use"
