"""What a person reads when something is wrong: one message instead of forty frames of a framework's traceback."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType

SELF_EXPLANATORY = (ValueError, RuntimeError, OSError, ImportError)
NO_GPU = (
    "Torch not compiled with CUDA enabled",
    "Found no NVIDIA driver",
    "No CUDA GPUs are available",
    "invalid device ordinal",
    "No HIP GPUs are available",
    "PyTorch is not linked with support for mps",
)
NO_MEMORY = ("can't allocate memory", "out of memory")
COMPONENT = re.compile(r"Failed to instantiate component '([^']+)' with keywords: ([\w,]*)")
LOST_WORKER = re.compile(r"DataLoader worker \(pid.*\) (?:exited unexpectedly|is killed by signal)")
PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def root_cause(error: BaseException) -> BaseException:
    """The exception of a chain that says what happened.

    MONAI and ignite wrap ours, and ours may name the file that a library's exception is silent about: it is the
    outermost one raised by this package, or, where there is none, the first of all that says something.
    """
    chain = list(_chain(error))
    speaking = [one for one in chain if str(one)]
    return next((one for one in chain if raised_here(one)), (speaking or chain)[-1])


def explain(error: BaseException) -> str:
    """One message for :func:`root_cause`, also where a ``DataLoader`` worker put a whole traceback into the text."""
    cause = root_cause(error)
    text = str(cause)
    if "Original Traceback (most recent call last):" in text:
        return _from_worker(text)
    if any(LOST_WORKER.search(str(one)) for one in _chain(error)):
        return (
            "a process that loads images was killed, most likely because memory, or shared memory in a container, ran "
            "out; try --num_workers 0, or a machine (docker run --shm-size) with more of it"
        )
    if any(sign in text for sign in NO_GPU):
        return f"no such GPU for torch ({text.splitlines()[0].rstrip('.')}); use --device cpu or a torch for GPUs"
    if isinstance(cause, MemoryError) or any(sign in text for sign in NO_MEMORY):
        return (
            f"{_component(error)}memory ran out ({text.splitlines()[0][:200] if text else 'no more is known'}); choose "
            "smaller settings (--image_size, batch sizes, those of network_def#head), or a machine with more memory"
        )
    if isinstance(cause, OSError) and cause.strerror and raised_here(cause):
        # Ours say all in words; the system's that a line of ours met say what is wrong, and with which file.
        return cause.strerror if cause.filename is None else f"{cause.filename}: {cause.strerror}"
    if not raised_here(cause) and (component := _component(error)):
        return f"{component}{text or type(cause).__name__}"
    if isinstance(cause, SELF_EXPLANATORY) and text:
        return text
    return f"{type(cause).__name__}: {text}".removesuffix(": ")


def short_tracebacks(debug: bool = False) -> None:
    """Print uncaught errors as one message on standard error; the exit status stays 1.

    Args:
        debug: keep Python's full traceback. Also kept when the environment variable ``DINO_UAD_DEBUG`` is set.
    """
    _print_any_character()
    if debug or os.environ.get("DINO_UAD_DEBUG"):
        return

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)  # Python then ends as shells expect of Ctrl-C
            return
        if not issubclass(kind, Exception):
            sys.__excepthook__(kind, error, trace)
            return
        print(f"error: {explain(error)}", file=sys.stderr)
        print("(set DINO_UAD_DEBUG=1 for the full traceback)", file=sys.stderr)

    sys.excepthook = show
    for handler in logging.getLogger().handlers:
        handler.addFilter(_not_an_error_on_its_way)


def _print_any_character() -> None:
    """Write out what a stream cannot print: no locale and no file name without UTF-8 shall end a run by its log."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _not_an_error_on_its_way(record: logging.LogRecord) -> bool:
    """Leave out what ignite's engines and MONAI's handlers log of an exception that they raise again."""
    return not record.exc_info and "terminating due to exception" not in record.getMessage()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it was raised from, outermost first."""
    inner: BaseException | None = error
    while inner is not None:
        yield inner
        inner = inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)


def _component(error: BaseException) -> str:
    """``torch.optim.AdamW(params, lr): `` where MONAI says that it was making this; else nothing."""
    making = [found for one in _chain(error) if (found := COMPONENT.search(str(one)))]
    return f"{making[-1][1]}({making[-1][2].replace(',', ', ')}): " if making else ""


def raised_here(error: BaseException) -> bool:
    """Whether a line of this package raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(PACKAGE)


def _from_worker(text: str) -> str:
    """The message in the traceback that torch carries from a worker process, chosen as by :func:`root_cause`."""
    blocks = re.split(r"\n\n(?:The above exception|During handling)[^\n]*\n\n", text.strip())
    files = [re.findall(r'^  File "([^"]+)"', block, re.MULTILINE) for block in blocks]
    ours = [block for block, names in zip(blocks, files, strict=True) if names and names[-1].startswith(PACKAGE)]
    message = re.split(r"\n(?=[A-Za-z_][\w.]*: )", (ours or blocks[:1])[-1], maxsplit=1)[-1]
    return message.partition(": ")[2] or message
