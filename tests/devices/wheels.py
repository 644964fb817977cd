"""The device side of kdeploy as wheels for another processor, to be carried there, or unpacked and imported."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

PROJECT = Path(__file__).parent.parent.parent
PYTHON = "3.11"  # Debian bookworm's
_C_LIBRARIES = ("2_28", "2_27", "2_17")  # bookworm has 2.36; wheels are made for old ones


def download(folder: Path, processor: str) -> None:
    """Put kdeploy's wheel, built here, and the tested versions of what it needs on `processor` into a new folder.

    processor: as `uname -m` says, such as aarch64.
    """
    folder.mkdir()
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(PROJECT))
    (ours,) = folder.glob("kdeploy-*.whl")
    platforms = [f"--platform=manylinux_{version}_{processor}" for version in _C_LIBRARIES]
    platforms.append(f"--platform=manylinux2014_{processor}")  # 2_17's older name
    constraints = str(PROJECT / "constraints.txt")
    _pip(
        *("download", str(ours), "--constraint", constraints, "--dest", str(folder)),
        *("--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms),
    )


def unpack(wheels: Path, site: Path) -> None:
    """Unpack a folder of wheels into a new folder that Python can import from, without running anything."""
    site.mkdir(parents=True)
    for wheel in wheels.glob("*.whl"):
        with ZipFile(wheel) as archive:
            archive.extractall(site)


def _pip(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
