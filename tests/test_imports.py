"""Arrows between the package's rooms point one way, and nobody reaches into a room past its door."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

import dino_uad

PACKAGE = Path(dino_uad.__file__).parent

# From the ground up: a room may import what stands before it in this list, never what comes after it.
FLOORS = (
    ("exact", "heap", "transfer", "ahead", "settings", "versions"),
    (
        "describe",
        "digests",
        "errors",
        "files",
        "parallel",
        "unequal_work",
        "tracing",
        "verbatim",
        "as_typed",
        "kinds",
        "whole_config",
        "overrides",
        "arguments",
        "measure",
        "processor",
        "products",
        "torch_files",
        "wording",
        "worker_logs",
    ),
    ("backbones",),
    ("heads",),
    ("findings",),
    ("detector",),
    ("inferers",),
    ("dicom_output",),
    ("transforms",),
    ("data",),
    ("embeddings",),
    ("metrics",),
    ("engines",),
    ("report",),
    ("worklist",),
    ("handlers",),
    ("export", "bundle_run", "calibrate", "as_file", "saved_names"),
    ("predictor",),
    ("demo",),
    ("compare",),
    ("distill",),
    ("bench",),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {
    ".".join(("dino_uad", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__main__.py"
}


def folder(module: str) -> str:
    """The package that a module is in; a package is in itself."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def exported(module: str | None) -> list[str]:
    """``__all__`` of a package, as written."""
    path = MODULES.get(module or "")
    if path is None or path.name != "__init__.py":
        return []
    lists = [node.value for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    return [name for value in lists if isinstance(value, ast.List) for name in ast.literal_eval(value)]


def imports(module: str) -> list[str]:
    """The modules of this package that ``module`` imports, anywhere in its code."""
    found = []
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A package may hand on a whole module of its own.
            handed_on = exported(node.module)
            found += [node.module if a.name in handed_on else f"{node.module}.{a.name}" for a in node.names]
    known = [name if name in MODULES else name.rpartition(".")[0] for name in found]
    return [name for name in known if name in MODULES and name != "dino_uad"]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down_and_stop_at_the_door(module: str) -> None:
    room = module.split(".")[1] if "." in module else "dino_uad"
    for imported in imports(module):
        target = imported.split(".")[1]
        if target != room and room in FLOOR:
            assert FLOOR[target] <= FLOOR[room], f"{module} imports {imported}, which stands above it"
        here, there = folder(module) + ".", folder(imported) + "."
        inside = here.startswith(there) or there.startswith(here)
        assert inside or MODULES[imported].name == "__init__.py" or imported.count(".") == 1, (
            f"{module} reaches past the door of {folder(imported)} for {imported}"
        )


def test_every_room_has_a_floor() -> None:
    assert {module.split(".")[1] for module in MODULES if "." in module} == set(FLOOR)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"dino_uad"}))
def test_no_name_hides_a_module(module: str) -> None:
    """A config's ``_target_`` names one thing: Python 3.12's ``pydoc.locate`` finds the module, older ones the name."""
    importlib.import_module(module)
    package, _, name = module.rpartition(".")
    assert getattr(sys.modules[package], name) is sys.modules[module]
