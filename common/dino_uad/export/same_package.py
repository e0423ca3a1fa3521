"""One process has one ``dino_uad``: a bundle that carries another one must not silently run with it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import dino_uad

logger = logging.getLogger(__name__)


def require_same_package(bundle_root: str) -> None:
    """Check that the package in use is the one that the bundle carries; the first thing a bundle's config does.

    Bundles that carry no package (in the repository) pass, as do bundles exported from one version of it.

    Raises:
        RuntimeError: the bundle carries another version than the one that was imported, from another bundle or from
            the environment.
    """
    carried, used = Path(bundle_root) / "dino_uad", Path(dino_uad.__file__).parent
    if not (carried / "__init__.py").is_file() or carried.resolve() == used.resolve():
        return
    version = re.search(r'^__version__ = "(.+)"', (carried / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    found = version[1] if version else "unknown"
    if found != dino_uad.__version__:
        raise RuntimeError(
            f"{bundle_root} carries dino_uad {found}, but {dino_uad.__version__} from {used} is in use in this "
            "process: run bundles of different versions in processes of their own, with the bundle's folder first on "
            "PYTHONPATH"
        )
    if _differs(carried, used):
        logger.warning(f"{bundle_root} carries its own dino_uad {found}, whose code differs from {used}, which is used")


def _differs(carried: Path, used: Path) -> bool:
    """Whether a module that is carried is another one, or none, in the package in use, which may hold more."""
    pairs = [(path, used / path.relative_to(carried)) for path in carried.rglob("*.py")]
    return any(not other.is_file() or path.read_bytes() != other.read_bytes() for path, other in pairs)
