"""Which images are one patient's: a split must not cut a patient in two, and intervals resample patients."""

from dino_uad.data.patients.find import find_patients

__all__ = ["find_patients"]
