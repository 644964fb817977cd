"""The README's commands do what it says: every `sh` block is run, in order, in one empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}


@pytest.mark.slow
def test_the_commands_run(tmp_path):
    quickstart = subprocess.run(
        ["kdeploy", "run", "quickstart"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=900
    )
    assert quickstart.returncode == 0, quickstart.stderr
    shown = README.split("<!-- output of `kdeploy run quickstart` -->")[1].split("```")[1]
    assert skeleton(shown.removeprefix("text\n")) == skeleton(quickstart.stdout)
    script = "set -eux\n" + "".join(blocks("sh"))
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert " 7 " in done.stdout  # the prediction


def skeleton(output: str) -> str:
    """The output's words, without figures and what is said of the machine: both differ from one to the next.

    In the order of the alphabet, as wider figures fold names.
    """
    text = re.sub(r"^(INVALID|warning) .*?(?=^(INVALID|warning) |\n\n)", "", output, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"[─\s]+", " ", re.sub(r"\d[\d.,]*|n/a", "0", text))
    text = re.sub(r"0 [kKMG](iB)?|0 B", "0 unit", re.sub("±0 %", "", text))
    text = re.sub(r"int0 fails on this machine: .*?\)\. ", "", text)  # a network this small: on some it is slower
    return " ".join(sorted(re.sub(r"student-onnxruntime-\w+", "engine", text).split()))


def test_make_does_what_the_lines_without_make_do():
    lines = next(block for block in blocks("") if "python3 -m venv" in block).splitlines()
    for target, wanted in (("install", lines[:2]), ("demo", lines[2:])):
        printed = subprocess.run(
            ["make", "-n", "-W", "pyproject.toml", target], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        for line in wanted:
            assert line in printed


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
