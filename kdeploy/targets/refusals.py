"""What a device, or the way to it, refused: in one sentence that says what to do."""

from __future__ import annotations

from typing import Any

from kdeploy.errors import KdeployError, Unavailable, UserError


class Gone(Unavailable):
    """The device knows nothing of a job any more."""


def refusal(message: dict[str, Any], place: str) -> KdeployError:
    """What a device refused, in one sentence that says what to do."""
    kind = message["error"]
    if kind == "disk":
        free = message["free_bytes"] >> 20
        return UserError(
            f"{place}: {message['why']} in {message['folder']} ({free} MiB are free). Make room there; "
            "`kdeploy target clean` removes what kdeploy keeps on it."
        )
    if kind == "busy":
        return Unavailable(
            f"{place} has been busy with another measurement for {message['since_s']:.0f} s; two at a time would "
            "disturb each other. Wait for its end; one that nobody waits for any more ends by itself after a minute."
        )
    if kind == "outside":
        return Unavailable(f"{place} refused {message['path']!r}, a path outside its job.")
    if kind == "broken":
        last = "".join(message["said"].strip().splitlines()[-1:])
        return Unavailable(f"{place}: its environment does not work ({last}). Make it anew: kdeploy target setup")
    if kind == "failed":
        said = message["said"].strip()
        missing = "No module named venv" in said or "No module named ensurepip" in said
        remedy = " Type there: sudo apt install python3-venv" if missing else ""
        return Unavailable(f"{place}: `{message['command']}` failed: {said}.{remedy}")
    if kind == "gone":
        return Gone(f"{place} has ended the run, and nothing of it is left there. Start it again.")
    if kind == "damaged":
        return UserError(f"{place}: a file arrived damaged. Is something writing to it here? Try it again.")
    if kind == "foreign":
        return UserError(f"{place}: {message['folder']} is somebody else's. Have its home folder be writable.")
    return Unavailable(
        f"{place}: what kdeploy does there failed. If it fails again, begin anew: kdeploy target clean, then setup.\n"
        f"{message.get('said', kind)}".rstrip()
    )


def unreachable(place: str, status: int | None, said: str, try_first: str) -> Unavailable:
    """Why a place can't be reached. status, said: of the command that tried it. try_first: what to type first."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lower = said.lower()
    if status == 127 or "python3: not found" in lower or "python3: command not found" in lower:
        remedy = "Install it there, for instance: sudo apt install python3 python3-venv"
        return Unavailable(f"{place} has no python3. {remedy}")
    if "SyntaxError" in said:
        return Unavailable(f"{place} has a Python that is too old to be asked: kdeploy needs 3.10 or newer there.")
    # The last line is what went wrong; what is before is a banner. ssh says only there why a connection was closed.
    last = lines[-1] if lines else f"the connection ended with status {status}"
    if last.startswith(("Connection closed", "Connection reset")) and len(lines) > 1:
        last = f"{lines[-2]}; {last}"
    hint = f" Try first whether this works: {try_first}" if try_first else ""
    return Unavailable(f"{place} can't be reached: {last.rstrip('.')}.{hint}")
