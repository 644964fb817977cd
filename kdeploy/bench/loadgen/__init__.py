"""MLPerf's own load generator, `mlperf_loadgen` from the package mlcommons-loadgen, on any engine.

`drive` sends one scenario's queries, lets LoadGen write its logs into a folder, and returns what its summary says;
`drive_engine` does so for an open engine. LoadGen needs its wheel or a C++ compiler: without either our own scenarios
(`kdeploy.bench.scenarios`), which follow the same rules, are there.
"""

from __future__ import annotations

from kdeploy.bench.loadgen.driving import drive, drive_engine, require, version
from kdeploy.bench.loadgen.summary import LoadgenResult, read_summary

__all__ = ["LoadgenResult", "drive", "drive_engine", "read_summary", "require", "version"]
