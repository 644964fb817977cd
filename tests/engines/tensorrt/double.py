"""A double of the module `tensorrt`, generated from a real surface: what the real one lacks, it lacks too.

It has the classes, enumerations and methods of that version and no others. Arguments are checked by count, name and
type, properties by whether they can be set; every call is recorded. What a method returns follows from its declared
type, unless a test gives an answer for it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import ModuleType
from typing import Any

Answers = dict[str, Any]
"""By "Class.method" or "Class.property": a value, or a function of the object and the arguments."""

_PLAIN = {"bool": True, "int": 0, "float": 0.0, "str": "", "None": None}
_BASIC: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "typing.SupportsInt": (int,),
    "bool": (bool,),
    "str": (str,),
    "buffer": (bytes, bytearray, memoryview),
    "typing_extensions.Buffer": (bytes, bytearray, memoryview),
    "tuple": (tuple,),
    "list": (list,),
    "tensorrt.Dims": (tuple, list),
}


class Double:
    """The module, and what was done with it."""

    def __init__(self, surface: dict[str, Any], version: str, answers: Answers) -> None:
        self.surface = surface
        self.answers = answers
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.module = ModuleType("tensorrt")
        self.module.__version__ = version  # type: ignore[attr-defined]
        self.module.__getattr__ = self._find  # type: ignore[method-assign]
        self._types: dict[str, type] = {}

    def _find(self, name: str) -> type:
        """A class or enumeration of the module, made when it is first asked for; "Outer.Inner" for a nested one."""
        if name not in self._types:
            described = self.surface.get(name)
            if described is None or described["kind"] == "function":
                raise AttributeError(f"module 'tensorrt' has no attribute {name!r}")
            make = self._enumeration if described["kind"] == "enum" else self._class
            self._types[name] = make(name, described)
        return self._types[name]

    def called(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of each call of "Class.method", or each value that "Class.property" was set to."""
        return [arguments for found, arguments in self.calls if found == name]

    def make(self, name: str) -> Any:
        """An object of a class that TensorRT alone creates."""
        kind = self._find(name)
        return kind.__new__(kind)

    def _enumeration(self, name: str, described: dict[str, Any]) -> type:
        return enum.IntEnum(name, {member: index for index, member in enumerate(described["members"])})

    def _class(self, name: str, described: dict[str, Any]) -> type:
        double = self

        def construct(self: Any, *arguments: Any, **keywords: Any) -> None:
            overloads = described["methods"].get("__init__")
            if not overloads:
                raise TypeError(f"tensorrt.{name}: No constructor defined!")
            double._match(f"{name}.__init__", overloads, (self, *arguments), keywords)
            double.calls.append((name, arguments))

        def get(self: Any, member: str) -> Any:
            if member not in described["properties"]:
                raise AttributeError(f"tensorrt.{name} has no {member!r}")
            return double._answer(f"{name}.{member}", described["properties"][member]["type"], self, ())

        def put(self: Any, member: str, value: Any) -> None:
            declared = described["properties"].get(member)
            if declared is None:
                if type(self) is made:  # a subclass of ours has what attributes it likes
                    raise AttributeError(f"tensorrt.{name} has no {member!r}")
            else:
                if not declared["settable"]:
                    raise AttributeError(f"tensorrt.{name}.{member} can't be set")
                assert double._is(value, declared["type"]), f"{name}.{member} = {value!r} ({declared['type']})"
                double.calls.append((f"{name}.{member}", (value,)))
            object.__setattr__(self, member, value)

        body: dict[str, Any] = {"__init__": construct, "__getattr__": get, "__setattr__": put}
        for method, overloads in described["methods"].items():
            if method != "__init__":
                body[method] = self._method(name, method, overloads)
        made = type(name, (), body)
        for inner, nested in described["classes"].items():
            enumeration = self._enumeration(inner, nested)
            self._types[f"{name}.{inner}"] = enumeration
            type.__setattr__(made, inner, enumeration)
            for constant in set(described["constants"]) & set(nested.get("members", ())):
                type.__setattr__(made, constant, enumeration[constant])  # type: ignore[index]
        return made

    def _method(self, owner: str, name: str, overloads: list[dict[str, Any]]) -> Callable[..., Any]:
        def method(this: Any, *arguments: Any, **keywords: Any) -> Any:
            overload = self._match(f"{owner}.{name}", overloads, (this, *arguments), keywords)
            given = (*arguments, *keywords.values())
            self.calls.append((f"{owner}.{name}", given))
            return self._answer(f"{owner}.{name}", overload["returns"], this, given)

        return method

    def _match(
        self, name: str, overloads: list[dict[str, Any]], given: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        for overload in overloads:
            declared = {argument["name"]: argument for argument in overload["arguments"]}
            bound = dict(zip(declared, given, strict=False)) | keywords
            required = {argument for argument, details in declared.items() if details["required"]}
            if (
                len(given) <= len(declared)
                and set(bound) <= set(declared)
                and required <= set(bound)
                and all(self._is(value, declared[argument]["type"]) for argument, value in bound.items())
            ):
                return overload
        raise TypeError(f"{name}(): incompatible function arguments: {given[1:]}, {keywords}")

    def _is(self, value: Any, declared: str) -> bool:
        if declared in _BASIC:
            return isinstance(value, _BASIC[declared]) and not (
                declared == "int" and isinstance(value, (bool, enum.Enum))
            )
        return not declared.startswith("tensorrt.") or isinstance(value, self._find(declared[len("tensorrt.") :]))

    def _answer(self, name: str, declared: str, this: Any, given: tuple[Any, ...]) -> Any:
        if name in self.answers:
            answer = self.answers[name]
            return answer(this, *given) if callable(answer) and not isinstance(answer, type) else answer
        if declared in _PLAIN:
            return _PLAIN[declared]
        if declared.startswith("tensorrt.") and self.surface[declared.split(".")[1]]["kind"] == "class":
            return self.make(declared.removeprefix("tensorrt."))
        raise AssertionError(f"{name} returns {declared}: the test has to say what")
