"""The network of this machine, for a root file system on it: names, certificates and pip's package index."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

_INDEX_OPTIONS = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert")


def carry_network(root: Path) -> None:
    """Let programs in `root` find names and packages as those outside do, but for files that lie here."""
    for file in ("resolv.conf", "hosts"):
        (root / "etc" / file).unlink(missing_ok=True)
        shutil.copyfile(Path("/etc") / file, root / "etc" / file)  # what a link aims at
    options = pip_options()
    if "cert" in options:
        bundle = Path(options["cert"])
        inside = root / bundle.relative_to("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle, inside)
    lines = [f"{name} = {value}" for name, value in options.items()]
    (root / "etc/pip.conf").write_text("\n".join(["[global]", "disable-pip-version-check = true", *lines, ""]))


def pip_options() -> dict[str, str]:
    """Those of pip's options here that say where packages come from, without folders of this machine."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    options = {}
    for line in listed.splitlines():  # global.index-url='https://…', and at last :env:.index-url='https://…'
        key, _, value = line.partition("=")
        if (name := key.rpartition(".")[2]) in _INDEX_OPTIONS:
            options[name] = ast.literal_eval(value)
    options.update(
        {name: os.environ[variable] for name in _INDEX_OPTIONS if (variable := _variable(name)) in os.environ}
    )
    for name in ("index-url", "extra-index-url", "find-links"):
        reachable = [url for url in options.pop(name, "").split() if url.startswith(("http://", "https://"))]
        if reachable:
            options[name] = " ".join(reachable)
    return options


def _variable(option: str) -> str:
    return f"PIP_{option.upper().replace('-', '_')}"
