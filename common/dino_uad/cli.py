"""The command line for what ``monai.bundle`` has no verb for. A verb's module is imported when the verb is used."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fire

from dino_uad.arguments import PreparedCall, fail, prepared, refuse_unknown_options, run

ALL_VERBS = {
    "demo": (
        "dino_uad.demo.command:run_demo",
        "Generate labelled data, then train, evaluate and infer one bundle on it.",
    ),
    "init": ("dino_uad.bundle_run:init", "Write the bundles into a folder of yours."),
    "weights": (
        "dino_uad.backbones.weights.commands:WeightCommands",
        "Backbone weights: list | fetch NAME | path NAME.",
    ),
    "cache": (
        "dino_uad.embeddings.commands:CacheCommands",
        "Cached embeddings: list DIR | prune DIR.",
    ),
    "check": (
        "dino_uad.data.check:check",
        "Print what is made of a folder: splits, classes, masks, patients, oddities.",
    ),
    "calibrate": (
        "dino_uad.calibrate:calibrate",
        "Take a model's thresholds and p-values from a site's own normal scans.",
    ),
    "prepare": (
        "dino_uad.data.preparation:prepare",
        "Turn labelled volumes into a data set of PNG slices, split by patient.",
    ),
    "compare": (
        "dino_uad.compare.run:compare",
        "Fit, evaluate and tabulate methods on one data set, with paired tests.",
    ),
    "distill": ("dino_uad.distill.command:distill", "Train a small backbone to predict the features of a large one."),
    "export": (
        "dino_uad.export.bundle:export_bundle",
        "Make a trained bundle a zip that works without this repository.",
    ),
    "import": (
        "dino_uad.export.bundle:import_bundle",
        "Unpack a bundle's zip safely. Its config is code: trust its maker.",
    ),
    "bench": ("dino_uad.bench.command:bench", "Measure speed and memory against what people would use instead."),
}
# An exported bundle carries the verbs that its receiver needs.
VERBS = {
    verb: (target, line)
    for verb, (target, line) in ALL_VERBS.items()
    if Path(__file__).parent.joinpath(*target.partition(":")[0].split(".")[1:]).with_suffix(".py").is_file()
}

USAGE = "usage: python -m dino_uad VERB [--option value ...]      (python -m dino_uad VERB --help: its options)"
FLAGS = ("--debug", "--json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; wrong arguments end with a short message and status 2, failures with one message and status 1."""
    from dino_uad.errors import short_tracebacks

    words = list(sys.argv[1:] if arguments is None else arguments)
    short_tracebacks(debug="--debug" in words)
    as_json = "--json" in words
    words = [word for word in words if word not in FLAGS]
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE + "\n")
        print("\n".join(f"  {name:9} {line}" for name, (_, line) in VERBS.items()))
        print("\nWith any verb: --json prints the result as JSON, --debug shows full tracebacks.")
        return
    if words[0] not in VERBS:
        fail(f"unknown verb {words[0]!r}; known: {', '.join(VERBS)}\n{USAGE}")
    call = parse(words[0], words[1:])
    with everything_to_standard_error() if as_json else contextlib.nullcontext():
        result = run(call)
    if as_json:
        print(json.dumps(result, indent=2, default=str))
    elif isinstance(result, str | os.PathLike):  # other results the verb has shown already
        print(result)


def parse(name: str, words: Sequence[str]) -> PreparedCall:
    """Fit the words after a verb to its parameters; anything wrong with them ends the process with status 2."""
    os.environ.setdefault("PAGER", "cat")
    verb = resolve(VERBS[name][0])
    refuse_unknown_options(name, verb, words)
    component: Any = verb() if isinstance(verb, type) else prepared(name, verb)
    commands = [key for key in vars(verb) if not key.startswith("_")] if isinstance(verb, type) else []
    for command in commands:
        setattr(component, command, prepared(f"{name} {command}", getattr(component, command)))
    line, shown = [name, *words], sys.stderr
    if "--help" in words or "-h" in words:  # behind "--" fire does not tell first how else to ask for it
        line, shown = [name, *(words[:1] if words[0] in commands else ()), "--", "--help"], sys.stdout
    with contextlib.redirect_stderr(shown):
        call = fire.Fire({name: component}, command=line, name="dino-uad", serialize=lambda _: None)
    if not isinstance(call, PreparedCall):
        fail(f"{name} needs a command: {', '.join(commands)}")
    return call


def resolve(target: str) -> Any:
    """Import ``module:name``."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


@contextlib.contextmanager
def everything_to_standard_error() -> Iterator[None]:
    """Leave standard output to the result alone: what a verb or a process that it starts prints goes the other way."""
    sys.stdout.flush()
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(output, 1)
        os.close(output)
