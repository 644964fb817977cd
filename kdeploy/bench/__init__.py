"""Measuring on this machine: latency, accuracy and size of an engine, in a process of its own; no torch, no onnx.

`artifacts.resolve` finds what can be measured, `measure.measure` measures it, `results` is the schema.
"""
