"""Torch to ONNX, with preprocessing in the graph where asked."""

from __future__ import annotations

from kdeploy.export.to_onnx import ExportedModel, export

__all__ = ["ExportedModel", "export"]
