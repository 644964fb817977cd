"""What kdeploy's own code uses of TensorRT and of cuda-python, derived from its source.

Types are followed through the code as far as the surface tells them: `builder = trt.Builder(logger)` makes `builder` a
Builder, and `network = builder.create_network(flags)` what that method returns. So nobody keeps a list by hand, and a
new call is checked as soon as it is written.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kdeploy.engines.tensorrt

MODULE = "tensorrt"
_PARAMETERS = {"trt": MODULE, "builder": "Builder", "config": "IBuilderConfig", "network": "INetworkDefinition"}
"""What these names hold where a function is given them."""
_ATTRIBUTES = {"_trt": MODULE}
_ALIASES = {"nvonnxparser::IParserError": "ParserError"}
_CLASSES_OF_SELF = {"engine": "ICudaEngine", "context": "IExecutionContext", "_runtime": "Runtime"}


@dataclass(frozen=True)
class Use:
    """owner: a class or enumeration, or the module. arguments: positional ones of a call, None for an attribute."""

    owner: str
    member: str
    arguments: int | None
    keywords: tuple[str, ...]
    is_set: bool
    place: str

    @property
    def name(self) -> str:
        return f"{self.owner}.{self.member}"


def of_tensorrt(surface: dict[str, Any]) -> list[Use]:
    """Every use of TensorRT in `kdeploy.engines.tensorrt`."""
    found: list[Use] = []
    for path in _sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            found += _Follower(surface, path.name, function).uses
    return found


def of_cuda() -> list[Use]:
    """Every `cudart.NAME` in `kdeploy.engines.tensorrt`; called through `call(cudart.NAME, arguments ...)`."""
    found = []
    for path in _sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("call", "cuda.call") and node.args:
                called[node.args[0]] = len(node.args) - 1
            elif isinstance(node, ast.Call):
                called[node.func] = len(node.args)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("cudart", "self._cudart", "runtime()"):
                place = f"{path.name}:{node.lineno}"
                found.append(Use("cudart", node.attr, called.get(node), (), False, place))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                inner = node.value
                if ast.unparse(inner.value) in ("cudart", "self._cudart"):
                    found.append(Use(inner.attr, node.attr, None, (), False, f"{path.name}:{node.lineno}"))
    return found


def _sources() -> list[Path]:
    return sorted(Path(kdeploy.engines.tensorrt.__file__).parent.glob("*.py"))


class _Follower(ast.NodeVisitor):
    """Follows types through one function."""

    def __init__(self, surface: dict[str, Any], file: str, function: ast.FunctionDef) -> None:
        self.surface = surface
        self.file = file
        self.uses: list[Use] = []
        self.types: dict[str, str] = {
            argument.arg: _PARAMETERS[argument.arg] for argument in function.args.args if argument.arg in _PARAMETERS
        }
        for statement in function.body:
            self.visit(statement)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name == MODULE:
                self.types[alias.asname or alias.name] = MODULE

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for part, value in zip(target.elts, node.value.elts, strict=True):
                    self._assign(part, self._type(value))
            else:
                self._assign(target, self._type(node.value))

    def _assign(self, target: ast.expr, kind: str | None) -> None:
        if isinstance(target, ast.Name):
            self.types.pop(target.id, None)
            if kind:
                self.types[target.id] = kind
        elif isinstance(target, ast.Attribute) and (owner := self._type(target.value)):
            self._note(owner, target.attr, target, is_set=True)

    def visit_Call(self, node: ast.Call) -> None:
        keywords = tuple(keyword.arg for keyword in node.keywords if keyword.arg)
        count = len(node.args)
        if isinstance(node.func, ast.Attribute) and (owner := self._type(node.func.value)):
            if any(isinstance(argument, ast.Starred) for argument in node.args):
                count = -1
            self._note(owner, node.func.attr, node, arguments=count, keywords=keywords)
            self.visit(node.func.value)
        else:
            self.visit(node.func)
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
            self.visit(argument)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if owner := self._type(node.value):
            self._note(owner, node.attr, node)
        self.visit(node.value)

    def _note(
        self,
        owner: str,
        member: str,
        node: ast.AST,
        *,
        arguments: int | None = None,
        keywords: tuple[str, ...] = (),
        is_set: bool = False,
    ) -> None:
        if member.startswith("__") and member != "__init__":
            return
        place = f"{self.file}:{getattr(node, 'lineno', 0)}"
        self.uses.append(Use(owner, member, arguments, keywords, is_set, place))

    def _type(self, node: ast.AST) -> str | None:
        """The class (or the module) that an expression gives, None where nothing tells it."""
        if isinstance(node, ast.Name):
            return self.types.get(node.id)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return _ATTRIBUTES.get(node.attr) or _CLASSES_OF_SELF.get(node.attr)
            owner = self._type(node.value)
            if owner == MODULE:
                return node.attr if node.attr in self.surface else None
            described = self.surface.get(owner or "", {})
            return _class(described.get("properties", {}).get(node.attr, {}).get("type"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = self._type(node.func.value)
            if owner == MODULE:
                return node.func.attr
            methods = self.surface.get(owner or "", {}).get("methods", {})
            overloads = methods.get(node.func.attr) or [{}]
            return _class(overloads[0].get("returns"))
        return None


def _class(returned: str | None) -> str | None:
    if returned in _ALIASES:
        return _ALIASES[returned]
    return returned.removeprefix("tensorrt.") if returned and returned.startswith("tensorrt.") else None
