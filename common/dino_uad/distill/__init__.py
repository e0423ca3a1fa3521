"""Distillation of a smaller backbone from a DINO teacher: ``python -m dino_uad distill``."""
