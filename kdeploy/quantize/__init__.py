"""ONNX to ONNX, without torch: rewrites, schemes, calibration, static int8."""
