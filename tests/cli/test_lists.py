"""Help, completion, JSON, and the verbs that list things."""

import inspect
import io
import json
import os
import pty
import re
import select
import subprocess
from pathlib import Path

import pytest
import typer.main
from rich.console import Console

import kdeploy as package
from kdeploy import methods, models, recipe
from kdeploy.cli.docstrings import reflow
from kdeploy.cli.main import app
from kdeploy.cli.methods import needs_text
from kdeploy.methods import Needs
from tests.cli.answer import COMMAND, environment

VERBS = sorted(typer.main.get_command(app).commands)


def completed(line: str, folder: Path) -> list[str]:
    """What the shell is offered for the last word of a line."""
    words = line.split(" ")
    more = {"_KDEPLOY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [COMMAND[0], "-c", "import sys; sys.argv[0] = 'kdeploy'; " + COMMAND[2]]
    done = subprocess.run(command, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False)
    return done.stdout.split()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_and_fits(verb, width, kdeploy, monkeypatch):
    monkeypatch.setenv("TERMINAL_WIDTH", str(width))
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", width)
    answer = kdeploy(verb, "--help")
    assert answer.status == 0
    assert f"Example: kdeploy {verb}" in answer.out
    assert max(map(len, answer.out.splitlines())) <= width
    assert "<bool>" not in answer.out, "a flag takes no value"
    assert "[[" not in answer.out


def test_each_example_is_a_command_that_there_is():
    """Its options exist; RUNS and files need not."""
    group = typer.main.get_command(app)
    for verb in VERBS:
        command = group.commands[verb]
        example = re.search(r"Example: kdeploy (.*)", command.help)[1].partition(" > ")[0].split()
        assert example[0] == verb
        command.make_context(verb, example[1:], resilient_parsing=False)


def test_version(kdeploy):
    assert kdeploy("--version").out == f"kdeploy {package.__version__}\n"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("kdeploy re", ["report", "recipes"]),
        ("kdeploy run qu", ["quickstart"]),
        (
            "kdeploy distill cifar10/",
            [
                "cifar10/information-flow",
                "cifar10/resnet20-data-free",
                "cifar10/resnet20-noise",
                "cifar10/resnet20-resnet8-perturbed-ensemble",
                "cifar10/resnet56-resnet8",
                "cifar10/resnet56-resnet8-assistants",
                "cifar10/resnet56-resnet8-kd",
                "cifar10/resnet8-mutual",
                "cifar10/resnet8-online-ensemble",
            ],
        ),
        ("kdeploy recipes qu", ["quickstart"]),
        ("kdeploy methods fa", ["factor-transfer"]),
        ("kdeploy models mlperf", ["mlperf_tiny_resnet8", "mlperf_tiny_resnet8_40"]),
        ("kdeploy export wrn_16", ["wrn_16_2"]),
        ("kdeploy run quickstart --device cu", ["cuda"]),
        ("kdeploy run quickstart --dr", ["--dry-run"]),
        ("kdeploy doctor --target lo", ["local"]),
    ],
)
def test_the_shell_completes(line, offered, tmp_path):
    assert completed(line, tmp_path) == offered


def test_completion_can_be_installed(tmp_path):
    command = [COMMAND[0], "-c", "import sys; sys.argv[0] = 'kdeploy'; " + COMMAND[2], "--show-completion", "bash"]
    named = environment(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")  # there may be no shell above this process
    done = subprocess.run(command, env=named, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "_KDEPLOY_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["methods"], {"methods"}),
        (["methods", "kd"], {"name", "paper", "year", "formula", "needs", "needs_text", "options", "text"}),
        (["procedures"], {"procedures"}),
        (["procedures", "offline"], {"name", "about", "options", "text"}),
        (["models"], {"classes", "channels", "models"}),
        (
            ["models", "resnet8", "--taps"],
            {"name", "shape", "classes", "parameters", "macs", "paper", "taps", "classifier"},
        ),
        (["recipes"], {"recipes"}),
        (["recipes", "quickstart"], {"name", "recipe"}),
        (["runs"], {"runs"}),
        (["cache"], {"folder", "entries"}),
        (["doctor"], {"machine", "findings"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_json_alone_is_on_standard_output_with_a_schema_version(words, keys, empty, kdeploy):
    answer = kdeploy(*words, "--json", "-")
    assert answer.status == 0, answer.err
    assert set(answer.json) == {"schema_version", *keys}
    assert answer.json["schema_version"] == 1
    table = kdeploy(*words, "--json", "written.json")
    assert table.out
    written, said = json.loads(Path("written.json").read_text()), answer.json
    for payload in (written, said):
        payload.pop("machine", None)  # its load and clock are those of the moment
    assert written == said


def test_schemas_are_written_down():
    text = (Path(package.__file__).parent / "cli" / "SCHEMAS.md").read_text()
    assert [verb for verb in VERBS if f"`{verb}" not in text] == []


def test_methods_lists_all_with_paper_year_needs_and_options(empty, kdeploy):
    answer = kdeploy("methods")
    lines = answer.out.splitlines()
    for name in methods.names():
        at = next(number for number, line in enumerate(lines) if line.split()[:1] == [name])
        found = methods.find(name)
        assert str(found.year) in lines[at]
        assert found.paper in lines[at]
        assert "needs " in lines[at + 1]


def test_a_method_is_explained_with_its_formula(empty, kdeploy):
    answer = kdeploy("methods", "kd")
    assert methods.find("kd").formula in answer.out
    assert re.search(r"^needs +logits *$", answer.out, re.MULTILINE)
    assert "    L = T^2 * (1/B) * sum over b, c of  p_t^T * (log p_t^T - log p_s^T)" in answer.out
    assert re.search(r"^temperature  T, no unit\.", answer.out, re.MULTILINE)
    assert max(len(line.rstrip()) for line in answer.out.splitlines()[5:]) <= 100


def test_every_method_s_text_can_be_shown():

    for name in methods.names():
        text = inspect.getdoc(methods.find(name))
        console = Console(file=io.StringIO(), width=80)
        console.print(reflow(text))
        shown = console.file.getvalue()
        assert sorted(re.findall(r"\w+", shown)) == sorted(re.findall(r"\w+", text)), "no word is lost"


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        (Needs(), "logits"),
        (Needs(labels=True), "logits, labels"),
        (Needs(features="last"), "features of the last stage"),
        (Needs(features="all", student_relu="after", teacher_relu="after"), "features of all stages after the ReLU"),
        (Needs(features="all", teacher_relu="before"), "features of all stages (the teacher's before the ReLU)"),
        (
            Needs(embedding=True, index=True, training_labels=True),
            "embeddings, labels of the whole training set, sample indices",
        ),
        (Needs(features="last", teacher_classifier=True), "features of the last stage, the teacher's classifier"),
        (Needs(rotations=4), "logits, 4 rotated views of each image"),
    ],
)
def test_needs_in_words(needs, text):
    assert needs_text(needs) == text


def test_models_are_listed_in_the_order_of_their_numbers_and_counted(empty, kdeploy):
    listed = {one["name"]: one["parameters"] for one in kdeploy("models", "--json", "-").json["models"]}
    assert sorted(listed) == models.names()
    assert list(listed)[2:].index("resnet8") < list(listed)[2:].index("resnet20") < list(listed)[2:].index("resnet110")
    assert listed["resnet8"] == 78_042
    assert listed["resnet32x4"] == 7_410_730, "7,433,860 are published for 100 classes: 90 x 257 more"
    out = kdeploy("models", "--classes", "100").out
    assert "7,433,860" in out


def test_taps_of_a_network(empty, kdeploy):
    answer = kdeploy("models", "resnet20", "--taps", "--json", "-")
    assert [tap["shape"] for tap in answer.json["taps"]] == [[16, 32, 32], [32, 16, 16], [64, 8, 8]]
    assert answer.json["classifier"] == {"path": "fc", "embedding": 64}
    told = kdeploy("models", "resnet20", "--taps").out.splitlines()
    assert told[-1].strip() == "distill: {taps: {student: [layer1, layer2, layer3], teacher: [...]}}"


def test_a_shape_that_a_network_cannot_take(empty, kdeploy):
    answer = kdeploy("models", "torchvision:alexnet", "--shape", "3x32x32")
    assert answer.status == 2
    assert "torchvision:alexnet does not take an input of 3x32x32" in answer.said


def test_recipes_lists_every_one_and_prints_one_as_it_is(empty, kdeploy):
    listed = [one["name"] for one in kdeploy("recipes", "--json", "-").json["recipes"]]
    assert listed == recipe.names()
    shipped = Path(package.__file__).parents[1] / "recipes" / "quickstart.yaml"
    assert kdeploy("recipes", "quickstart").out == shipped.read_text()


def test_the_schema_of_recipes_is_json_schema(empty, kdeploy):
    schema = json.loads(kdeploy("recipes", "--schema").out)
    assert "distill" in schema["properties"]
    assert schema["additionalProperties"] is False


def test_runs_where_there_are_none(empty, kdeploy):
    answer = kdeploy("runs")
    assert answer.status == 0
    assert answer.out == "No runs in runs. Type: kdeploy run quickstart\n"
    assert kdeploy("runs", "--json", "-").json["runs"] == []


def test_doctor_names_packages_with_their_brackets(empty, kdeploy):
    answer = kdeploy("doctor")
    assert "✓ kdeploy[train]" in answer.out
    assert "instruction sets" in answer.out


@pytest.mark.parametrize("words", [["recipes", "--json", "-"], ["recipes", "--schema"], ["--help"]], ids=" ".join)
def test_a_reader_that_leaves_is_no_error(words, tmp_path):
    """As in `kdeploy methods | head -0`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, *words],
        cwd=tmp_path,
        env=environment(),
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == (1 if words == ["--help"] else 0)  # of --help Typer decides


def on_a_terminal(words: list[str], folder: Path, **more: str) -> str:
    """What a terminal of 80 columns is sent."""
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *words], cwd=folder, env=environment(TERM="xterm", **more), stdout=terminal, stderr=terminal
    ):
        os.close(terminal)
        sent = b""
        while select.select([main], [], [], 60)[0]:
            try:
                sent += os.read(main, 65536)
            except OSError:  # the other end is closed
                break
    os.close(main)
    return sent.decode()


def test_no_color_is_respected(tmp_path):
    (tmp_path / "runs" / "broken").mkdir(parents=True)
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert colour.search(on_a_terminal(["runs"], tmp_path)), "a warning is yellow"
    without = on_a_terminal(["runs"], tmp_path, NO_COLOR="1")
    assert "broken" in without
    assert not colour.search(without)


def test_cache_lists_what_is_kept_and_clears_it(empty, kdeploy, monkeypatch):
    monkeypatch.setenv("KDEPLOY_CACHE", str(empty))
    assert f"Nothing is kept in {empty}." in kdeploy("cache").out
    kept = empty / "images" / "0123"
    kept.mkdir(parents=True)
    (kept / "images.npy").write_bytes(bytes(2048))
    os.utime(kept, (1.75e9, 1.75e9))
    (entry,) = kdeploy("cache", "--json", "-").json["entries"]
    used = "2025-06-15T15:06:40+00:00"
    assert entry == {"kind": "images", "path": str(kept), "size_bytes": 2048, "used_at": used}
    table = kdeploy("cache").out
    assert "2.00 KiB" in table
    assert re.search(r"\d+ days ago", table)
    assert kdeploy("cache", "clear", "--json", "-").json["size_bytes"] == 2048
    assert not kept.exists()


def test_cache_knows_no_other_word(empty, kdeploy):
    answer = kdeploy("cache", "clean")
    assert answer.status == 2
    assert "`kdeploy cache` cannot 'clean'. Did you mean 'clear'?" in answer.err
