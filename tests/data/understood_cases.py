"""A folder of made files, and what is understood of it."""

from pathlib import Path

import layouts

from dino_uad.data.case import Case, Options
from dino_uad.data.cases import understand

SPLITS = ("train", "valid", "test")


def understood(root: Path, *files: str, **options) -> list[Case]:
    return understand(layouts.write(root, files), Options(**options)).cases


def anomalous(cases: list[Case]) -> set[str]:
    return {case.image.relative for case in cases if case.anomalous}


def facts(cases: list[Case]) -> tuple:
    kinds = sum(not case.anomalous for case in cases), sum(case.anomalous for case in cases)
    return kinds, sum(bool(case.labels) for case in cases), len({case.group for case in cases})
