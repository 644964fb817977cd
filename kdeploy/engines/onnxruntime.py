"""ONNX Runtime, on the CPU unless an execution provider is named."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from kdeploy import artifacts, events
from kdeploy.engines._checks import Operators, compare, in_precision, match, require_opset, seeded_images
from kdeploy.engines._folder import complete, copy_in
from kdeploy.engines._onnxruntime_options import FOR_ONE_PROCESSOR, OnnxRuntimeOptions
from kdeploy.engines._onnxruntime_profile import profile
from kdeploy.engines._onnxruntime_session import OnnxSession, Opening
from kdeploy.engines._options import Options, parse
from kdeploy.engines.base import Availability, Engine, Manifest, Precision, Profile
from kdeploy.errors import UserError
from kdeploy.machine import installed, instruction_sets

__all__ = ["MINIMAL_BUILD", "MODEL", "ORT_MODEL", "OnnxRuntime", "OnnxSession"]

MODEL, ORT_MODEL = "model.onnx", "model.ort"
MINIMAL_BUILD = "required_operators_and_types.config"
_WRITE_CONFIGURATION = """
import sys
sys.modules["torch"] = None  # which the tools would import, and not use for this
from pathlib import Path
from onnxruntime.tools.ort_format_model import create_config_from_models
create_config_from_models([Path(sys.argv[1])], Path(sys.argv[2]), enable_type_reduction=True)
"""


class OnnxRuntime(Engine):
    """ONNX Runtime.

    Unless its options say otherwise the folder holds the ONNX file as it was exported, and the runtime optimises it
    while it opens. Saving the optimised graph instead was measured for ResNet-8 at two widths and in int8: it opens 3
    to 4 ms sooner (1.5 to 2 ms instead of 5 to 6), runs exactly as fast, and ties the file to one version of the
    runtime and, at the highest level, to one kind of processor.
    """

    name: ClassVar[str] = "onnxruntime"
    precisions: ClassVar[frozenset[Precision]] = frozenset({"float32", "float16", "int8", "mixed"})
    # Of 1.31, tried with one graph at each opset; an older ONNX Runtime takes less, and says so as it opens a file.
    highest_opset: ClassVar[int | None] = 26
    options: ClassVar[type[Options]] = OnnxRuntimeOptions

    def available(self) -> Availability:
        """Whether one distribution of it is installed, and imports as a whole. Never raises."""
        distributions = installed.onnxruntime_distributions()
        if clash := installed.onnxruntime_clash(distributions):
            reason, repair = clash
            return Availability(ok=False, reason=reason, install=repair)
        again = installed.onnxruntime_again(distributions)
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(ok=False, reason=f"Python can't import onnxruntime ({error})", install=again)
        # What is left where two of its distributions were installed over each other and one was removed.
        if not hasattr(onnxruntime, "InferenceSession"):
            reason = "the installed onnxruntime is broken, as after removing one of two of its packages"
            return Availability(ok=False, reason=reason, install=again)
        return Availability(ok=True, version=onnxruntime.__version__)

    def build(self, model: Path, folder: Path, manifest: Manifest) -> Manifest:
        """Bring the ONNX file `model` into `folder` and prove that the runtime computes what the graph says.

        The reference is the same runtime, on the CPU with all graph optimisations off (see `_checks.compare`). Raises
        UserError for a file that is not valid ONNX and for nodes that fall back (`Opening.session`), GateFailed for
        float32 outputs that differ.
        """
        options = self._options(manifest)
        require_opset(self, manifest, model)
        with closing(self.open_reference(model)) as reference:
            match(reference.input_name, str(reference.input_dtype), manifest, model)
            images = seeded_images(manifest, reference.batch)
            expected = reference.run(images)
        built = _bring(model, folder, options)
        with closing(self._opening(built, options, manifest.precision, threads=_fewest_threads(options))) as session:
            outputs, operators = session.run(images), session.operators(images)
        check = compare("ONNX Runtime", expected, outputs, manifest, model)
        _warn_of_float32(operators, manifest, model)
        details = {"onnxruntime": self.available().version, "operators": operators, "check": check}
        if options.graph != "exported":
            details["processor"] = _processor()
        return complete(folder, manifest, engine=self.name, files=[built.name], details=details)

    def open(self, folder: Path, manifest: Manifest, threads: int) -> OnnxSession:
        """Open a built engine with this many threads.

        Raises UserError, beside what `Opening.session` does, where the graph was optimised for another processor.
        """
        options = self._options(manifest)
        if options.graph != "exported":
            self._require_same(folder, manifest, options)
        session = self._opening(folder / manifest.model, options, manifest.precision, threads)
        match(session.input_name, str(session.input_dtype), manifest, folder / manifest.model)
        return session

    def open_file(self, path: Path, threads: int) -> OnnxSession:
        """Open an ONNX file that has no manifest, such as somebody else's. Raises UserError where it can't be."""
        return Opening(path, threads, OnnxRuntimeOptions(), "all").session()

    def open_reference(self, path: Path) -> OnnxSession:
        """Open an ONNX file without any optimisation of its graph: what other engines are compared with."""
        return Opening(path, 1, OnnxRuntimeOptions(), "none").session()

    def profile(
        self, folder: Path, manifest: Manifest, threads: int, inputs: Sequence[NDArray[Any]], calls: int
    ) -> Profile:
        """Times by node from ONNX Runtime's own trace; see `Engine.profile`."""
        with closing(self.open(folder, manifest, threads)) as session:
            return profile(session, inputs, calls)

    def profile_file(self, path: Path, threads: int, inputs: Sequence[NDArray[Any]], calls: int) -> Profile:
        """As `profile`, of an ONNX file that has no manifest."""
        with closing(self.open_file(path, threads)) as session:
            return profile(session, inputs, calls)

    def _options(self, manifest: Manifest) -> OnnxRuntimeOptions:
        return parse(OnnxRuntimeOptions, manifest.options, self.name)

    @staticmethod
    def _opening(path: Path, options: OnnxRuntimeOptions, precision: Precision, threads: int) -> OnnxSession:
        """Open a file of an engine folder; a graph that was optimised before is left as it is."""
        level = options.optimisation if options.graph == "exported" else "none"
        return Opening(path, threads, options, level, precision).session()

    def _require_same(self, folder: Path, manifest: Manifest, options: OnnxRuntimeOptions) -> None:
        """The version of the runtime, and at the levels that know it the processor, for which it was optimised."""
        version, here = self.available().version, _processor()
        if manifest.details["onnxruntime"] != version:
            events.warn(
                f"{folder} was optimised by ONNX Runtime {manifest.details['onnxruntime']}, and this is {version}: "
                "build it again if it does not open."
            )
        if options.optimisation in FOR_ONE_PROCESSOR and manifest.details["processor"] != here:
            raise UserError(
                f"{folder} was optimised for {manifest.details['processor']}, and this is {here}: build it here, or "
                "with the option optimisation: extended."
            )


def _bring(model: Path, folder: Path, options: OnnxRuntimeOptions) -> Path:
    """Put the model into the folder in the form that the options ask for; where it lies."""
    if options.graph == "exported":
        copy_in(model, folder, MODEL)
        return folder / MODEL
    is_ort = options.graph == "ort"
    built = folder / (ORT_MODEL if is_ort else MODEL)
    form = {"session.save_model_format": "ORT"} if is_ort else {}
    with artifacts.atomic_path(built) as temporary:
        Opening(model, _fewest_threads(options), options, options.optimisation).start(optimised=temporary, entries=form)
    if is_ort:
        _write_configuration(built, folder / MINIMAL_BUILD)
    return built


def _write_configuration(built: Path, target: Path) -> None:
    """Write which operators and types the model needs, for `build.sh --minimal_build --include_ops_by_config`.

    In a process of its own: ONNX Runtime's tools import torch, change the search path and leave files open.
    """
    with artifacts.atomic_path(target) as temporary:
        command = [sys.executable, "-c", _WRITE_CONFIGURATION, str(built), str(temporary)]
        subprocess.run(command, check=True, capture_output=True)


def _fewest_threads(options: OnnxRuntimeOptions) -> int:
    """One, or as many as an affinity names processors for."""
    return 1 + len(options.affinity.split(";")) if options.affinity else 1


def _processor() -> str:
    """As much of it as the layout of a graph depends on: MLAS blocks channels by 16 with AVX-512, by 8 without."""
    return f"{platform.machine()} with AVX-512" if "avx512f" in instruction_sets() else platform.machine()


def _warn_of_float32(operators: Operators, manifest: Manifest, model: Path) -> None:
    """float16 is often stored only, and computed in float32 between casts: worth its bytes, and worth knowing."""
    inside, every = in_precision(operators, manifest.precision)
    if manifest.precision == "float16" and inside < every:
        events.warn(
            f"{model}: of the {every} convolutions and matrix products, ONNX Runtime computes {every - inside} in "
            "float32 on this processor, between casts."
        )
