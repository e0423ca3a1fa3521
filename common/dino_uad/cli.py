"""The command line for what ``monai.bundle`` has no verb for. Every import of weight happens inside a verb."""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any

import fire


class Commands:
    """Unsupervised anomaly detection in medical images with frozen DINO features."""

    def demo(self, out: str = "demo", bundle: str = "dpmm", arch: str = "dinov2_vits14", seed: int = 0) -> None:
        """Generate labelled data, then train, evaluate and infer one bundle, and draw what it found."""
        from dino_uad.demo import run_demo

        run_demo(out, bundle=bundle, arch=arch, seed=seed)

    def prepare(self, source: str, out: str, **options: Any) -> None:
        """Turn a folder of volumes with labels into a data set of PNG slices in the BMAD layout, split by patient."""
        from dino_uad.data.prepare import prepare

        prepare(source, out, **options)

    def compare(self, dataset_dir: str, **options: Any) -> None:
        """Fit, evaluate and tabulate methods on one data set, with paired tests between them."""
        from dino_uad.compare.run import compare

        compare(dataset_dir, **options)

    def export(self, bundle: str, out: str = "dist", model: str | None = None, **overrides: Any) -> None:
        """Make a trained bundle a zip that works without this repository; give the overrides that train was given."""
        from dino_uad.export.bundle import export_bundle

        print(export_bundle(bundle, out, model, **overrides))

    @property
    def weights(self) -> Any:
        """List, fetch or locate backbone weights: weights list | fetch NAME | path NAME."""
        from dino_uad.weights.commands import WeightCommands

        return WeightCommands()


def _import(self: Commands, file: str, out: str = "bundles", sha256: str | None = None) -> None:
    """Unpack a bundle's zip safely. A bundle's config is code: run it only if you trust whoever made it."""
    from dino_uad.export.bundle import import_bundle

    print(import_bundle(file, out, sha256))


setattr(Commands, "import", _import)  # a keyword of Python, so that `def` cannot say it


def verbs() -> dict[str, str]:
    """Every verb with the first line of its documentation."""
    members = inspect.getmembers_static(
        Commands, lambda member: inspect.isfunction(member) or isinstance(member, property)
    )
    return {name: inspect.getdoc(member).splitlines()[0] for name, member in members if not name.startswith("_")}


def main() -> None:
    """Run one verb; wrong arguments end with a short message and status 2, failures with one message and status 1."""
    from dino_uad.errors import short_tracebacks

    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    short_tracebacks(debug=len(arguments) < len(sys.argv) - 1)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print("usage: python -m dino_uad VERB [--option value ...]      (VERB --help explains the options)\n")
        print("\n".join(f"  {name:12} {line}" for name, line in verbs().items()))
        print("\nAdd --debug to any verb for full tracebacks.")
        return
    if arguments[0] not in verbs():
        print(f"error: unknown verb {arguments[0]!r}; known: {', '.join(verbs())}", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("PAGER", "cat")
    fire.Fire(Commands, command=arguments, name="dino_uad")
