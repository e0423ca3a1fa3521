"""What pyproject.toml cannot say: a wheel takes the bundles along, which lie beside the package in the repository."""

from pathlib import Path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py

# A fitted model, maps and caches that lie in a bundle's folder are the user's, not the package's.
PARTS = ("configs/*", "docs/*", "LICENSE", "large_files.yml")


class BuildWithBundles(build_py):
    """Copies ``bundles/NAME`` to ``dino_uad/bundled/NAME``, where ``dino-uad init`` takes it from."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for bundle in sorted(Path("bundles").iterdir()):
            for path in sorted(path for part in PARTS for path in bundle.glob(part) if path.is_file()):
                target = Path(self.build_lib, "dino_uad", "bundled", bundle.name, path.relative_to(bundle))
                target.parent.mkdir(parents=True, exist_ok=True)
                copyfile(path, target)


setup(cmdclass={"build_py": BuildWithBundles})
