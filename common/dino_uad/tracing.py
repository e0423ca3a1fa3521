"""Whether the model runs to be recorded: a graph must not branch on values, and nothing made in it may be kept."""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Whether TorchScript, ``torch.compile`` or ``torch.export`` (and so an ONNX exporter) is recording this call."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()
