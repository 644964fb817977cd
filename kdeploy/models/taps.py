"""Features from inside any network, by forward hooks on module paths; and which paths are a CNN's stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdeploy.errors import UserError, nearest
from kdeploy.models.counting import blank, evaluating

Relu = Literal["as-is", "before", "after"]

_ACTIVATIONS = frozenset(
    {"relu", "relu6", "hardtanh", "leaky_relu", "elu", "silu", "gelu", "hardswish", "mish", "prelu"}
)
_ACTIVATION_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Mish,
    nn.PReLU,
)

_RESIZING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Tap:
    """A module of a network by its path, and the shape of what it gives, without the batch."""

    path: str
    shape: tuple[int, ...]


class Taps:
    """The features of a network while it runs, in a `with` block; the hooks are gone when it ends.

        with Taps(network, ["layer1", "layer2"], classifier="fc") as taps:
            logits = network(images)
            taps.features      # the outputs of these modules, in this order
            taps.embedding     # the input of the classifier, [B, D]

    Each forward pass replaces what the one before it gave. Nothing is stored on the network.

    relu: which tensor stands for a module's output. "as-is": that output. "before": what went into the activation
    that made it; where none did but a batch norm takes it next (pre-activation networks), that norm's output.
    "after": what the activation made, if need be the one behind that norm. Where there is no such activation it is the
    output as it is. Activations are seen whether they are modules, functions, or in place.

    Raises UserError for a path that the network has not; LookupError for features that no forward pass has given.
    """

    def __init__(
        self, network: nn.Module, paths: Sequence[str], *, classifier: str | None = None, relu: Relu = "as-is"
    ) -> None:
        self._network = network
        for path in paths:
            _module(network, path)
        self._paths = tuple(paths)
        self._classifier = None if classifier is None else _module(network, classifier)
        self._watch = None if relu == "as-is" else _Activations(relu)
        self._found: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._embedding: Tensor | None = None
        self._close: list[Callable[[], None]] = []

    def __enter__(self) -> Taps:
        if self._watch is not None:
            before = self._network.register_forward_pre_hook(self._watch.start)
            after = self._network.register_forward_hook(self._watch.stop, always_call=True)
            self._close += [before.remove, after.remove]
        for path in self._paths:  # by path, because a network may have modules exchanged (synchronised batch norm)
            self._close.append(_module(self._network, path).register_forward_hook(self._keep(path)).remove)
        if self._classifier is not None:
            self._close.append(self._classifier.register_forward_pre_hook(self._keep_input).remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for close in self._close:
            close()
        self._close.clear()
        self._found.clear()
        self._embedding = None

    @property
    def features(self) -> list[Tensor]:
        """What the modules gave in the last forward pass, in the order of the paths."""
        missing = [path for path in self._paths if path not in self._found]
        if missing:
            raise LookupError(f"no forward pass has gone through {', '.join(missing)}")
        for path, version in self._versions.items():
            if not self._found[path].is_inference() and self._found[path]._version != version:
                raise UserError(f"The network overwrites what {path} gives, in place: tap the module behind it.")
        found = [self._found[path] for path in self._paths]
        return found if self._watch is None else [self._watch.moved(output) for output in found]

    @property
    def embedding(self) -> Tensor:
        """What went into the classifier in the last forward pass, `[B, D]`."""
        if self._embedding is None:
            raise LookupError("no forward pass has gone through the classifier")
        return self._embedding

    def _keep(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise UserError(f"The tap {path} gives a {type(output).__name__}, not a tensor: name another module.")
            self._found[path] = output
            self._versions[path] = 0 if output.is_inference() else output._version
            if self._watch is not None:
                self._watch.tapped(output)

        return hook

    def _keep_input(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._embedding = inputs[0].flatten(1)


def find_taps(network: nn.Module, shape: tuple[int, int, int]) -> list[Tap]:
    """The stage outputs of a CNN, shallow to deep, found by running it on one black image of shape (C, H, W).

    A stage is what a network computes at one height and width; its output is the last map of that size that a
    convolution, or an activation behind one, gave, named by the outermost module that gives it. Modules inside a block
    that changes the size itself are no stages, nor are maps of 1x1 (squeeze-and-excitation, pooled embeddings). A
    first size at which there is only one convolution is a stem, and left out, as in the tables of the field.

    Raises UserError where nothing is found: a network without convolutions that shrink an image.
    """
    last: dict[tuple[int, ...], _Call] = {}
    convolutions: Counter[tuple[int, ...]] = Counter()
    for call in _along(_trace(network, shape)):
        activates = isinstance(call.module, _ACTIVATION_MODULES) and call.size in last
        if call.size and (activates or call.convolutions):
            last.pop(call.size, None)  # so that the order is that of the last maps, not of the first
            last[call.size] = call
            if not isinstance(call.module, nn.Sequential):  # its parts are counted
                convolutions[call.size] += call.convolutions
    first = next(iter(convolutions), ())
    if convolutions[first] == 1:
        del last[first]
    if not last:
        raise UserError(f"{type(network).__name__} has no stages of a convolutional network: name its taps yourself.")
    return [Tap(call.path, call.shape) for call in last.values()]


def name_taps(network: nn.Module, paths: Sequence[str], shape: tuple[int, int, int]) -> list[Tap]:
    """The taps of these module paths, with the shapes that an image of shape (C, H, W) has there.

    Raises UserError for a path that the network has not, for a module that gives no map `[B, C, H, W]`, with the
    shape that it gives, and for one that an image does not go through.
    """
    for path in paths:
        _module(network, path)
    given = {call.path: call.shape for call in _trace(network, shape).everything()}
    for path in paths:
        if path not in given:
            raise UserError(f"No image goes through {path} of {type(network).__name__}, so it cannot be tapped.")
        if len(given[path]) != 3:
            shown = f"[B, {', '.join(map(str, given[path]))}]" if given[path] else "no tensor"
            raise UserError(f"The module {path} of {type(network).__name__} gives {shown}, not a map [B, C, H, W].")
    return [Tap(path, given[path]) for path in paths]


def find_classifier(network: nn.Module, shape: tuple[int, int, int]) -> Tap:
    """The last linear layer that an image of shape (C, H, W) goes through; its `shape` is (D,), of what goes in."""
    linear = [call for call in _trace(network, shape).everything() if isinstance(call.module, nn.Linear)]
    if not linear:
        raise UserError(f"{type(network).__name__} has no linear layer, so it has no embedding to distil from.")
    module = linear[-1].module
    assert isinstance(module, nn.Linear)
    return Tap(linear[-1].path, (module.in_features,))


def pair_taps(*networks: Sequence[Tap]) -> tuple[list[Tap], ...]:
    """As many taps of each network, from the deepest: one with more stages lends its last ones."""
    count = min(len(taps) for taps in networks)
    return tuple(list(taps)[len(taps) - count :] for taps in networks)


@dataclass
class _Call:
    """One call of a module in a forward pass.

    size: (H, W) of what it gave, empty where that is no map or only 1x1; entered: the same of what it took.
    """

    path: str
    module: nn.Module
    entered: tuple[int, ...]
    inner: list[_Call] = field(default_factory=list)
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> tuple[int, ...]:
        return _size(self.shape)

    @property
    def convolutions(self) -> int:
        """How many convolutions in it give maps of its own size."""
        return sum(isinstance(call.module, nn.Conv2d) and call.size == self.size for call in self.everything())

    def everything(self) -> Iterator[_Call]:
        """All calls in it and itself, in the order in which they ended."""
        for call in self.inner:
            yield from call.everything()
        yield self


def _size(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[1:]) if len(shape) == 3 and tuple(shape[1:]) != (1, 1) else ()


def _along(call: _Call) -> Iterator[_Call]:
    """The calls on the way through: a container's parts and then, if it is one stage, itself; a block as a whole."""
    sizes = {inner.size for inner in call.everything() if isinstance(inner.module, _RESIZING)} | {call.entered}
    changes = len(sizes - {()}) - 1
    if call.size and changes < 2 and not isinstance(call.module, nn.Sequential):
        yield call
        return
    for inner in call.inner:
        yield from _along(inner)
    if changes < 2:
        yield call


def _trace(network: nn.Module, shape: tuple[int, int, int]) -> _Call:
    """The calls of one forward pass as a tree."""
    stack: list[_Call] = []
    roots: list[_Call] = []

    def enter(path: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            entered = _size(inputs[0].shape[1:]) if inputs and isinstance(inputs[0], Tensor) else ()
            call = _Call(path, module, entered)
            (stack[-1].inner if stack else roots).append(call)
            stack.append(call)

        return hook

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        call = stack.pop()
        call.shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()

    with _hooks(network, enter, leave), evaluating(network):
        network(blank(network, shape))
    return roots[0]


@contextmanager
def _hooks(network: nn.Module, enter: Callable[[str], Any], leave: Any) -> Iterator[None]:
    handles = []
    for path, module in network.named_modules():
        handles += [module.register_forward_pre_hook(enter(path)), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _module(network: nn.Module, path: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError:
        known = [name for name, _ in network.named_modules() if name]
        raise UserError(
            f"There is no module {path!r} to tap in {type(network).__name__}.{nearest(path, known)}"
        ) from None


class _Activations(TorchFunctionMode):
    """Follows a forward pass and remembers, for tapped tensors, what lies before and behind their activation."""

    def __init__(self, relu: Relu) -> None:
        super().__init__()
        self._relu = relu
        self._last: tuple[Tensor, Tensor] | None = None  # input and output of the latest activation
        self._tapped: list[Tensor] = []
        self._norms: list[tuple[Tensor, Tensor]] = []  # a tapped tensor, and the batch norm of it
        self._moved: list[tuple[Tensor, Tensor]] = []

    def start(self, network: nn.Module, inputs: Any) -> None:
        self._last = None
        for kept in (self._tapped, self._norms, self._moved):
            kept.clear()
        self.__enter__()  # type: ignore[no-untyped-call]

    def stop(self, network: nn.Module, inputs: Any, output: Any) -> None:
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._last = None

    def tapped(self, output: Tensor) -> None:
        """Called when a tapped module has given `output`."""
        if self._last is not None and self._last[1] is output:
            self._moved.append((output, self._last[0] if self._relu == "before" else output))
        else:
            self._tapped.append(output)

    def moved(self, output: Tensor) -> Tensor:
        """The tensor that stands for `output`."""
        return next((other for tensor, other in self._moved if tensor is output), output)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").rstrip("_")
        if name in _ACTIVATIONS:
            return self._activation(func, name, args, kwargs)
        result = func(*args, **kwargs)
        if name == "batch_norm" and any(tensor is args[0] for tensor in self._tapped):
            self._norms.append((args[0], result))
            if self._relu == "before":
                self._moved.append((args[0], result))
        return result

    def _activation(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor:
        before = args[0]
        in_place = kwargs.get("inplace") or func.__name__.endswith("_") or any(value is True for value in args[1:])
        saved = before.clone() if in_place and self._relu == "before" else before
        result: Tensor = func(*args, **kwargs)
        self._last = (saved, result)
        if self._relu == "after":
            follows = [*self._norms, *((tensor, tensor) for tensor in self._tapped)]
            self._moved += [(tensor, result) for tensor, entering in follows if entering is before]
        return result
