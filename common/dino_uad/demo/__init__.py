"""Generated head scans with lesions, and the demonstration that trains a bundle on them."""

from dino_uad.demo.demo_dataset import make_demo
from dino_uad.demo.lesions import add_lesions
from dino_uad.demo.phantom import SHAPE, SPACING, Anatomy, acquire, make_anatomy
from dino_uad.demo.smooth_fields import smooth_noise

__all__ = [
    "SHAPE",
    "SPACING",
    "Anatomy",
    "acquire",
    "add_lesions",
    "make_anatomy",
    "make_demo",
    "smooth_noise",
]
