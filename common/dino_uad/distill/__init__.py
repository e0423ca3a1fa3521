"""Distillation of a small backbone from a DINO teacher: ``python -m dino_uad distill``."""
