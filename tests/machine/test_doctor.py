import json

import pytest

from kdeploy.engines.base import Availability
from kdeploy.machine import doctor, installed
from kdeploy.quantize.schemes import choose_scheme

MACHINE = {
    "board": None,
    "processor": "Cortex-A76",
    "architecture": "aarch64",
    "cores": {"logical": 4, "usable": 4},
    "memory_bytes": 8 * 2**30,
    "emulation": None,
    "governor": "performance",
    "virtual_machine": False,
}
CPU = ("CPUExecutionProvider",)


def torch(**changes):
    facts = {
        "version": "2.13.0+cpu",
        "cuda_build": None,
        "gpus": (),
        "nvidia_driver": False,
        "torchvision": "0.28.0",
        "torchvision_error": None,
    }
    return installed.Torch(**{**facts, **changes})


def by_name(findings):
    return {finding.what: finding for finding in findings}


def test_examine_tells_of_this_machine(monkeypatch):
    monkeypatch.setattr(installed, "torch", lambda: None)  # two seconds to import; looked at in its own test
    diagnosis = doctor.examine()
    assert json.loads(diagnosis.model_dump_json())["schema_version"] == 1
    found = by_name(diagnosis.findings)
    assert found["machine"].level == "ok"
    assert installed.onnxruntime_distributions()["onnxruntime"] in found["onnxruntime"].detail
    assert "CPUExecutionProvider" in found["onnxruntime"].detail
    assert found["engine onnxruntime"].level == "ok"
    assert diagnosis.problems == ()


@pytest.mark.parametrize(
    ("instruction_sets", "scheme", "int8", "bfloat16"),
    [
        ({"avx2", "avx512f", "avx512_vnni", "amx_bf16"}, "x86-vnni", "ok", "ok"),
        ({"avx2", "avx_vnni"}, "x86-vnni", "ok", "note"),
        ({"avx2", "avx512f"}, "x86-avx2", "note", "note"),
        ({"asimd", "asimddp", "bf16"}, "arm64", "ok", "ok"),
        ({"asimd"}, "without NEON's dot product", "note", "note"),
        (set(), "prefer float32", "note", "note"),
    ],
)
def test_what_instruction_sets_mean(instruction_sets, scheme, int8, bfloat16):
    found = by_name(doctor.judge_processor(frozenset(instruction_sets), "some"))
    assert scheme in found["int8"].detail
    assert found["int8"].level == int8
    assert found["bfloat16"].level == bfloat16


@pytest.mark.parametrize("instruction_sets", [{"avx2", "avx_vnni"}, {"avx2"}, {"asimd", "asimddp"}, {"asimd"}])
def test_the_scheme_named_is_the_one_that_quantize_chooses(instruction_sets):
    found = by_name(doctor.judge_processor(frozenset(instruction_sets), "some"))
    assert f"Scheme {choose_scheme('auto', instruction_sets).name}" in found["int8"].detail


def test_a_quiet_board_has_nothing_to_note():
    assert [finding.level for finding in doctor.judge_machine(MACHINE)] == ["ok"]


@pytest.mark.parametrize(
    ("change", "what", "level"),
    [
        ({"emulation": "qemu-aarch64-static"}, "emulation", "problem"),
        ({"governor": "powersave"}, "frequency governor", "note"),
        ({"virtual_machine": True}, "virtual machine", "note"),
    ],
)
def test_what_disturbs_a_measurement_is_named(change, what, level):
    assert by_name(doctor.judge_machine({**MACHINE, **change}))[what].level == level


def test_one_onnxruntime_is_well():
    (finding,) = doctor.judge_onnxruntime({"onnxruntime": "1.31.1"}, installed.OnnxRuntime("1.31.1", CPU))
    assert (finding.level, finding.fix) == ("ok", None)


def test_two_onnxruntimes_over_each_other_are_a_problem_with_its_repair():
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.30.0"}
    clash, loaded = doctor.judge_onnxruntime(both, installed.OnnxRuntime("1.30.0", CPU))
    assert clash.level == "problem"
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.30.0" in clash.detail
    uninstall, install = (clash.fix or "").split(" && ")
    assert uninstall == "pip uninstall -y onnxruntime onnxruntime-gpu"
    assert install == "pip install --no-deps onnxruntime-gpu==1.30.0"
    assert loaded.level == "ok"


def test_only_what_brings_the_same_files_counts_as_another_onnxruntime(tmp_path, monkeypatch):
    for name, version, package in [("gpu", "1.30.0", "onnxruntime"), ("qnn", "2.1.0", "onnxruntime_qnn")]:
        folder = tmp_path / f"onnxruntime_{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: onnxruntime-{name}\nVersion: {version}\n")
        (folder / "RECORD").write_text(f"{package}/__init__.py,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = installed.onnxruntime_distributions()
    assert found.keys() == {"onnxruntime", "onnxruntime-gpu"}
    assert found["onnxruntime-gpu"] == "1.30.0"


def test_a_broken_and_an_absent_onnxruntime():
    (broken,) = doctor.judge_onnxruntime({"onnxruntime": "1.31.1"}, "ImportError: libfoo.so.1")
    assert broken.level == "problem"
    assert "libfoo.so.1" in broken.detail
    (absent,) = doctor.judge_onnxruntime({}, "ModuleNotFoundError: No module named 'onnxruntime'")
    assert (absent.detail, absent.fix) == ("It is not installed.", "pip install onnxruntime")


def test_engines_with_reason_and_command():
    ready, lacking = doctor.judge_engines(
        {
            "onnxruntime": Availability(True, version="1.31.1"),
            "pytorch": Availability(False, reason="torch is not installed", install="pip install 'kdeploy[train]'"),
        }
    )
    assert (ready.level, ready.detail) == ("ok", "1.31.1")
    assert (lacking.level, lacking.detail, lacking.fix) == (
        "note",
        "torch is not installed",
        "pip install 'kdeploy[train]'",
    )


def test_torch_that_is_absent_or_broken():
    (absent,) = doctor.judge_torch(None)
    assert (absent.level, absent.fix) == ("note", "pip install 'kdeploy[train]'")
    (broken,) = doctor.judge_torch("OSError: libtorch.so")
    assert broken.level == "problem"


def test_a_driver_without_a_usable_gpu_is_a_problem():
    found = by_name(doctor.judge_torch(torch(nvidia_driver=True)))
    assert found["torch and the GPU"].level == "problem"
    gpu = torch(nvidia_driver=True, cuda_build="13.0", gpus=("Orin (compute capability 8.7, 8 GiB)",))
    assert "torch and the GPU" not in by_name(doctor.judge_torch(gpu))


def test_torchvision_that_does_not_fit_is_noted_with_its_repair():
    finding = by_name(doctor.judge_torch(torch(torchvision_error="OSError: libc10_cuda.so")))["torchvision"]
    assert finding.level == "note"
    assert "libc10_cuda.so" in finding.detail
    assert "torchvision==0.28.0 --index-url https://download.pytorch.org/whl/cpu" in (finding.fix or "")
    assert by_name(doctor.judge_torch(torch()))["torchvision"].level == "ok"


def test_extras_name_what_is_missing():
    requires = [
        "numpy>=1.26",
        "kdeploy[onnx]; extra == 'train'",
        "pydantic>=2.8 ; extra == 'train'",
        "no-such-package-a>=1; extra == 'train'",
        'no-such-package-b; extra == "onnx"',
        "numpy; extra == 'timm'",
        "no-such-package-c; extra == 'dev'",
    ]
    missing = installed.missing_by_extra(requires)
    assert missing == {
        "train": ["no-such-package-a"],
        "onnx": ["no-such-package-b"],
        "timm": [],
        "dev": ["no-such-package-c"],
    }
    found = by_name(doctor.judge_extras(missing))
    assert list(found) == ["kdeploy[train]", "kdeploy[onnx]", "kdeploy[timm]"]
    assert found["kdeploy[train]"].fix == "pip install 'kdeploy[train]'"
    assert found["kdeploy[timm]"].level == "ok"


def test_python_310_is_for_the_device_side():
    assert doctor.judge_python((3, 11)).level == "ok"
    assert doctor.judge_python((3, 10)).level == "note"


def test_torch_as_installed():
    pytest.importorskip("torch")
    facts = installed.torch()
    assert isinstance(facts, installed.Torch)
    assert facts.version.startswith(str(installed.metadata.version("torch").partition("+")[0]))


def test_a_failing_import_is_told_in_one_line():
    assert installed._sentence(ImportError("first line\nsecond")) == "ImportError: first line"
    assert installed._sentence(ValueError()) == "ValueError"
