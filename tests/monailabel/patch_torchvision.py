"""Let torchvision be imported beside a torch for CPUs, when its own wheel was built for CUDA.

Its compiled operators do not load there, and ``import torchvision`` then fails where it registers shapes for two of
them without asking whether they exist (it asks for all others). The server needs only functions written in Python.
"""

import importlib.util
import re
from pathlib import Path

REGISTRATION = re.compile(r'^@torch\.library\.register_fake\("(torchvision::q?nms)"\)$', re.MULTILINE)
GUARDED = r'@torch.library.register_fake("\1") if torchvision.extension._has_ops() else lambda function: function'


def main() -> None:
    """Guard the two registrations; does nothing where that was done, or where torchvision no longer has them."""
    package = Path(importlib.util.find_spec("torchvision").origin).parent
    module = package / "_meta_registrations.py"
    source, count = REGISTRATION.subn(GUARDED, module.read_text())
    if count:
        module.write_text(source)
    print(f"{module}: {count} registrations guarded")


if __name__ == "__main__":
    main()
