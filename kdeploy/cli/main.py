"""The command line: wires the verbs and turns errors into exit statuses. One verb a file; no logic here.

Exit status: 0 done; 1 a bug of ours; 2 the user can fix it; 3 a gate did not hold; 4 a measurement is
invalid and --strict was asked for; 5 an engine, device or target is not available; 130 interrupted
(143 and 129 where it was a signal that asked: SIGTERM, SIGHUP).
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer

from kdeploy import __version__
from kdeploy.cli import (
    bench,
    bundle,
    cache,
    distill,
    doctor,
    export,
    methods,
    models,
    predict,
    procedures,
    recipes,
    report,
    run,
    runs,
    sensitivity,
    target,
)
from kdeploy.cli.verbs import Interrupted, Verbs
from kdeploy.errors import KdeployError, UserError

_NOT_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""A full disk, or a place that may not be read or written: the user can put it right."""
_BUGS = "https://github.com/kdeploy/kdeploy/issues"

app = typer.Typer(
    name="kdeploy",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a teacher's checkpoint to a measured engine on a small device.\n\nExample: kdeploy run quickstart",
)
for _verb in (
    run,
    distill,
    export,
    bench,
    report,
    bundle,
    predict,
    sensitivity,
    runs,
    recipes,
    methods,
    procedures,
    models,
    cache,
    doctor,
    target,
):
    _verb.register(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"kdeploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit with the status that fits."""
    for asked_to_end in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(asked_to_end) is signal.SIG_DFL:  # nohup has it ignored, and that is to stay
            signal.signal(asked_to_end, _end)
    sys.exit(_run())


def _end(number: int, frame: FrameType | None) -> None:
    """End as on Ctrl-C, so that child processes end and temporary files go."""
    raise Interrupted(128 + number)


def _run() -> int:
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KdeployError as error:
        _say(f"kdeploy: {error}")
        return error.exit_status
    except Interrupted as interrupted:
        _say(f"\nkdeploy: interrupted. To go on: {_again()}")
        return interrupted.exit_status
    except OSError as error:
        if error.errno not in _NOT_OURS:
            return _bug()
        _say(f"kdeploy: {error.strerror}{f': {error.filename}' if error.filename else ''}.")
        _drop_output()
        return UserError.exit_status
    except Exception:
        return _bug()
    return 0


def _bug() -> int:
    _say(traceback.format_exc())
    _say(f"kdeploy: this is a bug of ours. Please report it with the lines above: {_BUGS}")
    return 1


def _again() -> str:
    """The command line that continues what was interrupted; --fresh would throw away what is done."""
    return shlex.join(["kdeploy", *(word for word in sys.argv[1:] if word != "--fresh")])


def _say(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the last word, also when Rich cannot be loaded
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _drop_output() -> None:
    """Let go of what could not be written, or Python tries again and complains when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
