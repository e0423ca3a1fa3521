"""What the method learned: one module a head, which registers its section."""

from dino_uad.report.methods import anomaly_dino, dino_ad, dpmm, spatial_ar
from dino_uad.report.methods.section import MethodContext, method_section

__all__ = ["MethodContext", "anomaly_dino", "dino_ad", "dpmm", "method_section", "spatial_ar"]
