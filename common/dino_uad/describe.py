"""What a thing is set to, as JSON: two things that could behave differently must not look alike.

For cache keys, and for the question whether a checkpoint belongs to a run. ``repr`` will not do: it abbreviates arrays,
hides what a ``partial`` or a closure holds, and shows addresses. Pickle's own protocol (``__reduce_ex__``) knows the
state of every object that can be copied.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import json
import logging
import random
import sys
import sysconfig
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)

# Random states move on with every use, locks and thread-local flags belong to the process, a device says where and not
# what: none is a setting.
NO_SETTING = (
    torch.device,
    np.random.RandomState,
    np.random.Generator,
    torch.Generator,
    random.Random,
    threading.local,
    type(threading.Lock()),
    type(threading.RLock()),
)
BUILT_IN = (
    np.ufunc,
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
INSTALLED = tuple(
    f"{Path(folder).resolve()}/"
    for folder in (
        *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")),
        # Where else packages were put: a user's own, the system's beside an environment, `pip install --target`.
        *(folder for folder in sys.path if folder and any(Path(folder).glob("*.dist-info"))),
        Path(__file__).parent,
    )
)


def describe(thing: Any) -> Any:
    """Describe settings in JSON types, the same in every process.

    Functions and classes of installed packages go by their names and the package's version; those of a user by their
    byte code, constants, defaults, closures, and the globals they look at. Arrays count by their bytes, and a
    :class:`~pathlib.Path` by those of its file. What nothing is known of is described by its address, with a warning:
    it is never taken for anything else, nor for itself in another run.
    """
    return _Describer()(thing)


def describe_part(part: Any) -> list[Any]:
    """:func:`describe` of a part's class and settings: what its ``settings()`` say, else its attributes."""
    return [describe(type(part)), describe(part.settings() if hasattr(part, "settings") else part)]


def sha256(content: bytes | memoryview) -> str:
    """Digest of bytes, long enough that two never share one."""
    return hashlib.sha256(content).hexdigest()[:32]


class _Describer:
    """Builds one description; a thing that occurs again is replaced by a reference, so that cycles end."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, Any]] = {}  # holds the things, so that no address is used twice

    def __call__(self, thing: Any) -> Any:
        if thing is None or type(thing) in (bool, int, float, str):
            return thing
        if type(thing) in (list, tuple):
            return [self(item) for item in thing]
        if type(thing) is dict and all(type(key) is str for key in thing):
            return {key: self(value) for key, value in thing.items() if not isinstance(value, NO_SETTING)}
        if type(thing) is dict:
            return ["dict", *([self(key), self(value)] for key, value in thing.items())]
        if isinstance(thing, set | frozenset):
            return ["set", *sorted(map(self, thing), key=json.dumps)]
        if isinstance(thing, bytes | bytearray):
            return ["bytes", sha256(thing)]
        if isinstance(thing, np.ndarray | np.generic | torch.Tensor):
            return self._array(thing)
        if isinstance(thing, Path):
            return ["path", str(thing), sha256(thing.read_bytes()) if thing.is_file() else None]
        if isinstance(thing, NO_SETTING):
            return [type(thing).__name__]
        if id(thing) in self._seen:
            return ["number", self._seen[id(thing)][0], "of this description"]
        self._seen[id(thing)] = (len(self._seen), thing)
        return self._code(thing) or self._object(thing)

    def _array(self, array: np.ndarray | np.generic | torch.Tensor) -> list[Any]:
        kind = type(array).__name__
        if isinstance(array, torch.Tensor):
            plain = array.detach().as_subclass(torch.Tensor).cpu().contiguous()
            return [kind, str(array.dtype), list(array.shape), sha256(plain.reshape(-1).view(torch.uint8).numpy().data)]
        if array.dtype.hasobject:
            return [kind, list(array.shape), self(array.tolist())]
        return [kind, str(array.dtype), list(array.shape), sha256(np.ascontiguousarray(array).tobytes())]

    def _code(self, thing: Any) -> list[Any] | None:
        """Functions, classes, modules and what is made of them; None for anything else."""
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        if isinstance(thing, types.CodeType):
            return ["code", sha256(thing.co_code), *map(self, (thing.co_varnames, thing.co_names, thing.co_consts))]
        if isinstance(thing, type) and not isinstance(thing, types.GenericAlias):
            return self._class(thing)
        if isinstance(thing, functools.partial):
            return ["partial", self(thing.func), self(thing.args), self(thing.keywords)]
        if isinstance(thing, types.MethodType):
            return ["method", self(thing.__func__), self(thing.__self__)]
        if isinstance(thing, staticmethod | classmethod | functools._lru_cache_wrapper):
            return [type(thing).__name__, self(thing.__wrapped__)]
        if isinstance(thing, property):
            return ["property", self(thing.fget), self(thing.fset)]
        if isinstance(thing, BUILT_IN):
            owner = getattr(thing, "__self__", None)
            return ["built in", thing.__name__, None if isinstance(owner, types.ModuleType) else self(owner)]
        if isinstance(thing, types.ModuleType):
            file = getattr(thing, "__file__", None)
            return ["module", thing.__name__, _version(thing.__name__) if _installed(file) else self(Path(file))]
        return None

    def _function(self, function: types.FunctionType) -> list[Any]:
        code = function.__code__
        name = f"{function.__module__}.{function.__qualname__}"
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
        given = [self(function.__defaults__), self(function.__kwdefaults__), self(cells)]
        if _installed(code.co_filename):
            return ["function", name, _version(function.__module__), *given]
        used = {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
        return ["function", function.__qualname__, self(code), self(used), *given]

    def _class(self, cls: type) -> list[Any]:
        name = f"{cls.__module__}.{cls.__qualname__}"
        if _installed(getattr(sys.modules.get(cls.__module__), "__file__", None), cls.__module__):
            return ["class", name, _version(cls.__module__)]
        own = {key: value for key, value in vars(cls).items() if _behaves(key, value)}
        return ["class", name, self(own), [self(base) for base in cls.__bases__]]

    def _object(self, thing: Any) -> list[Any]:
        """Any other object by what a copy of it would be made from."""
        try:
            reduced = thing.__reduce_ex__(4)
        except Exception:  # a class may refuse in any way
            name = f"{type(thing).__module__}.{type(thing).__qualname__}"
            logger.warning(f"the settings of a {name} cannot be told: what was made with it is not used again")
            return ["unknown", name, id(thing)]
        if isinstance(reduced, str):
            return [self(type(thing)), reduced]
        make, *parts = (list(part) if isinstance(part, Iterator) else part for part in reduced)
        maker = [] if make is copyreg.__newobj__ else [self(make)]
        return maker + [self(part) for part in parts if part is not None]


def _names(code: types.CodeType) -> list[str]:
    """The names, possibly global, that a function and those inside it use."""
    inner = [name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _names(constant)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _behaves(key: str, value: Any) -> bool:
    """Whether an attribute of a class is a method or a setting, not what Python keeps there."""
    special = key.startswith(("__", "_abc_")) and not isinstance(value, types.FunctionType | staticmethod | classmethod)
    return not special and not isinstance(value, types.GetSetDescriptorType)


def _installed(file: str | None, module: str = "") -> bool:
    """Whether code comes with Python, from an installed package, or from this one: its version says what it does."""
    if file is None:
        return module != "__main__"
    return file.startswith("<frozen") or str(Path(file).resolve()).startswith(INSTALLED)


def _version(module: str | None) -> str | None:
    return getattr(sys.modules.get((module or "").partition(".")[0]), "__version__", None)
