"""Unsupervised anomaly detection in medical images with frozen DINO features, as MONAI bundles."""

__version__ = "0.1.0"
