"""Where in somebody's network an export stopped, and why, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import FrameType

from torch import fx, nn


def where(error: BaseException, wrapper: nn.Module) -> str:
    """The path of the module at fault, with its class: `network.layer1.0 (BasicBlock)`.

    Found in the frames that the exception went through: the innermost `forward` of one of our modules, or the
    torch operator under translation, which remembers its module. "the network" where there is neither.
    """
    paths = {id(module): path for path, module in wrapper.named_modules() if path}
    found = "the network"
    for frame in _frames(error):
        for value in list(frame.f_locals.values()):
            if isinstance(value, fx.Node) and value.meta.get("nn_module_stack"):
                path, kind = list(value.meta["nn_module_stack"].values())[-1]
                found = _described(str(path), kind if isinstance(kind, str) else kind.__name__)
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and id(module) in paths:
            found = _described(paths[id(module)], type(module).__name__)
    return found


def why(error: BaseException) -> str:
    """The first line of the exception at the bottom of the chain, which names the operator or the construct."""
    while error.__cause__ is not None:
        error = error.__cause__
    violated = re.search(r"Constraints violated \((\w+)", str(error))
    if violated and violated[1] == "batch":
        return "its forward works for one batch size only; take it from the input, as in x.shape[0]"
    if violated:
        return f"its forward works for one {violated[1]} only, so that the size cannot be left open"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0].split(" Failure message")[0] if lines else type(error).__name__).rstrip(".:")


def _described(path: str, kind: str) -> str:
    return f"{path} ({kind.rsplit('.', 1)[-1]})" if path else "the network"


def _frames(error: BaseException) -> Iterator[FrameType]:
    """The frames of an exception and of those that caused it, outermost first, the first cause last."""
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from _frames(cause)
