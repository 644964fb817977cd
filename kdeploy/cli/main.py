"""The command line: wires the verbs and turns errors into exit statuses. One verb a file; no logic here.

Exit status: 0 done; 1 a bug of ours; 2 the user can fix it; 3 a gate did not hold; 4 a measurement is
invalid and --strict was asked for; 5 an engine, device or target is not available; 130 interrupted.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from typing import Annotated

import typer

from kdeploy import __version__
from kdeploy.cli import bench, bundle, distill, doctor, export, methods, models, predict, recipes, report, run, runs
from kdeploy.cli.verbs import Interrupted
from kdeploy.errors import KdeployError

_BUGS = "https://github.com/kdeploy/kdeploy/issues"
_INTERRUPTED = 130

app = typer.Typer(
    name="kdeploy",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a teacher's checkpoint to a measured engine on a small device.\n\nExample: kdeploy run quickstart",
)
for _verb in (run, distill, export, bench, report, bundle, predict, runs, recipes, methods, models, doctor):
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
    sys.exit(_run())


def _run() -> int:
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KdeployError as error:
        _say(f"kdeploy: {error}")
        return error.exit_status
    except (Interrupted, KeyboardInterrupt):
        _say(f"\nkdeploy: interrupted. To go on: {_again()}")
        return _INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception:
        traceback.print_exc()
        _say(f"\nkdeploy: this is a bug of ours. Please report it with the lines above: {_BUGS}")
        return 1
    return 0


def _again() -> str:
    """The command line that continues what was interrupted; --fresh would throw away what is done."""
    return shlex.join(["kdeploy", *(word for word in sys.argv[1:] if word != "--fresh")])


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - the last word, also when Rich cannot be loaded


if __name__ == "__main__":
    main()
