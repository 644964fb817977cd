"""Torch to ONNX, with preprocessing in the graph where asked; and somebody else's ONNX file, which needs no torch.

`to_onnx`, `wrappers`, `failures` and `bisecting` need torch; the other modules need onnx alone.
"""
