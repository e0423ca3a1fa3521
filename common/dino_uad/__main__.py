"""``python -m dino_uad VERB``: the command line."""

from dino_uad.cli import main

main()
