"""Suffixes of files beside images that are no images: what may be looked into, and what never is a mask."""

from __future__ import annotations

import re

BOXES = (".txt", ".xml", ".json")
"""Annotations as boxes or polygons, where a folder or name says so."""
TEXTS = (
    *(".csv", ".csv.gz", ".tsv", ".tsv.gz", ".tab", ".txt", ".lst", ".list", ".json", ".jsonl", ".xml"),
    *(".yaml", ".yml", ".xls", ".xlsx"),
)
ARRAYS = (".mat", ".npy", ".npz", ".h5", ".hdf5", ".roi", ".geojson")
"""Beside a picture and of its name, they hold its annotation; beside volumes affines and the like."""
OPAQUE = (
    *(".pkl", ".pickle", ".pt", ".pth", ".parquet", ".feather", ".db", ".sqlite", ".sqlite3", ".xls", ".ods", ".zip"),
    *(".tar", ".tar.gz", ".tgz", ".7z", ".rar", *ARRAYS),
)
"""Not looked into: what their names say must do."""
PROGRAMS = (
    *(".py", ".ipynb", ".m", ".r", ".sh", ".bat", ".c", ".h", ".cpp", ".java", ".js", ".cfg", ".ini", ".toml", ".log"),
)
"""Programs: their names tell what they do, not which diagnoses they hold."""
PAPERS = (".md", ".rst", ".pdf", ".doc", ".docx", ".odt", ".rtf", ".tex", ".html", ".htm", ".bib", ".ppt", ".pptx")
NO_MASKS = (*(suffix for suffix in TEXTS if suffix not in BOXES), *PROGRAMS, *PAPERS, ".db", ".part", ".tmp", ".bak")
"""Never masks, even in a folder of masks or with the name of one."""

ENDS = re.compile(r"(?:\.[a-z]{2,5})?\.(?:gz|bz2|xz|zst|lzma|zip)$|\.[^.]+$", re.IGNORECASE)
"""All suffixes of a packed file: ``.nii.bz2``."""


def stem_of(name: str) -> str:
    """The name of a file in any format without its suffixes."""
    return ENDS.sub("", name) or name
