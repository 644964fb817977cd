"""A `trtexec` that builds nothing: it takes its version's options and no others, prints what the real one prints, and
gives answers that ONNX Runtime computed before. The script uses the standard library alone: it starts at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kdeploy.engines._checks import seeded_images
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.engines.tensorrt import versions
from tests.engines.tensorrt.world import PHRASES, WORDS, layer, manifest

DEVICE = """=== Device Information ===
Selected Device: Orin
Compute Capability: 8.7
SMs: 8
"""

PROFILE = """[
  { "count" : 81 }
, { "name" : "stem", "timeMs" : 20.5, "averageMs" : 0.253, "medianMs" : 0.25, "percentage" : 82.2 }
, { "name" : "head", "timeMs" : 4.4, "averageMs" : 0.0545, "medianMs" : 0.05, "percentage" : 17.8 }
]
"""
"""As the real one writes it (`sampleReporting.cpp` of NVIDIA/TensorRT)."""

SCRIPT = """
import json, sys
from pathlib import Path

folder = Path(__file__).parent
told = json.loads((folder / "told.json").read_text())
with (folder / "calls.jsonl").open("a") as stream:
    stream.write(json.dumps(sys.argv[1:]) + "\\n")
given = dict(argument[2:].partition("=")[::2] for argument in sys.argv[1:])
print(told["banner"])
if unknown := set(given) - set(told["options"]):
    print("[11/21/2026-20:00:00] [E] Unknown option: --" + min(unknown))
    sys.exit(1)
if "help" in given:
    sys.exit(0)
print(told["device"])
if told["fail"]:
    print("[11/21/2026-20:00:00] [E] Error[4]: " + told["fail"] + "\\n&&&& FAILED TensorRT.trtexec")
    sys.exit(1)
contents = {
    "saveEngine": "a plan",
    "timingCacheFile": "timings",
    "exportLayerInfo": json.dumps(told["layers"]),
    "exportOutput": told["answer"] if isinstance(told["answer"], str) else json.dumps(told["answer"]),
    "exportProfile": told["profile"],
    "exportTimes": json.dumps([{"latencyMs": 0.5}, {"latencyMs": 0.25}]),
}
for option, content in contents.items():
    if option in given:
        Path(given[option]).write_text(content)
print("&&&& PASSED TensorRT.trtexec")
"""


def install(
    folder: Path,
    version: str,
    precision: str = "float32",
    *,
    model: Path | None = None,
    text: str | None = None,
    fail: str = "",
    profile: str = PROFILE,
) -> Path:
    """Write the script `trtexec` into `folder`; it answers the check's images as `model` does, or `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = versions.parse(version)
    unit = (1000, 100) if parts[0] < 10 else (10_000, 100)
    words = PHRASES if parts[0] < 10 else WORDS
    told = {
        "banner": f"&&&& RUNNING TensorRT.trtexec [TensorRT v{parts[0] * unit[0] + parts[1] * unit[1] + parts[2]}]",
        "device": DEVICE,
        "options": sorted(versions.trtexec_options(parts)),
        "layers": {
            "Layers": [layer("stem", precision, words=words), layer("head", precision, kind="gemm", words=words)]
        },
        "answer": answer(model) if model else text,
        "fail": fail,
        "profile": profile,
    }
    (folder / "told.json").write_text(json.dumps(told))
    script = folder / "trtexec"
    script.write_text(f"#!{sys.executable} -SE{SCRIPT}")
    script.chmod(0o755)
    return script


def calls(folder: Path) -> list[list[str]]:
    """The arguments of each start, `--help` left out."""
    path = folder / "calls.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [found for line in lines if (found := json.loads(line)) != ["--help"]]


def answer(model: Path) -> list[dict[str, object]]:
    """What `trtexec --exportOutput` writes."""
    with OnnxRuntime().open_file(model, threads=1) as session:
        outputs = session.run(seeded_images(manifest(), None))
    shape = "x".join(str(size) for size in outputs.shape)
    return [{"name": "logits", "dimensions": shape, "values": outputs.ravel().tolist()}]
