"""The command line for what ``monai.bundle`` has no verb for. A verb's module is imported when the verb is used."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import fire

VERBS = {
    "demo": ("dino_uad.demo:run_demo", "Generate labelled data, then train, evaluate and infer one bundle on it."),
    "weights": ("dino_uad.weights.commands:WeightCommands", "Backbone weights: list | fetch NAME | path NAME."),
    "prepare": (
        "dino_uad.data.prepare:prepare",
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
        print(f"error: unknown verb {words[0]!r}; known: {', '.join(VERBS)}\n{USAGE}", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("PAGER", "cat")
    verb = resolve(VERBS[words[0]][0])
    refuse_unknown_options(words[0], verb, words[1:])
    wrap = functools.partial(reporting, as_json=as_json)
    component = wrap(verb) if not isinstance(verb, type) else verb()
    fire.Fire(
        component, command=words[1:], name=f"dino_uad {words[0]}", serialize=functools.partial(render, as_json=as_json)
    )


def resolve(target: str) -> Any:
    """Import ``module:name``."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def refuse_unknown_options(name: str, verb: Callable[..., Any], words: Sequence[str]) -> None:
    """End with status 2 if an option is none of the verb's; fire would say so only after the verb has run."""
    parameters = inspect.signature(verb).parameters
    if isinstance(verb, type) or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = {*parameters, *(f"no{parameter}" for parameter in parameters), "help"}
    given = [word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--") and len(word) > 2]
    unknown = [option for option in given if option not in known]
    if unknown:
        options = ", ".join(f"--{parameter}" for parameter in parameters)
        print(f"error: {name} has no option --{unknown[0]}; its options: {options}", file=sys.stderr)
        sys.exit(2)


def reporting(function: Callable[..., Any], as_json: bool) -> Callable[..., Any]:
    """With ``--json`` standard output is for the result alone; what the function prints goes to standard error."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            return function(*args, **kwargs)

    return call


def render(result: Any, as_json: bool) -> Any:
    """What fire prints: JSON if asked for; else text as it is, and nothing for a result the verb has shown already."""
    if as_json:
        return json.dumps(result, indent=2, default=str)
    return result if isinstance(result, str) or result is None else str(result) if hasattr(result, "__fspath__") else ""
