"""Patches that bite: one that no longer changes anything fails its test."""

import dis
import functools
import importlib
import types
from collections.abc import Iterator
from typing import Any

import pytest

UNSET: Any = object()


class BitingPatch(pytest.MonkeyPatch):  # type: ignore[misc]
    """A MonkeyPatch that refuses to patch a module where nothing looks the name up.

    A function that takes the place of a method, or of something of another package, must be called before the test
    ends, unless it is there to fail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.uncalled: dict[int, str] = {}

    def setattr(self, target: Any, name: Any, value: Any = UNSET, raising: bool = True) -> None:
        if value is UNSET:
            path, _, attribute = target.rpartition(".")
            target, name, value = importlib.import_module(path), attribute, name
        if isinstance(target, types.ModuleType) and target.__name__.partition(".")[0] == "ciess":
            if name not in looked_up(target):
                # What others import each time that they run is looked up by them: it must be called then.
                if getattr(getattr(target, name, None), "__module__", None) != target.__name__:
                    pytest.fail(f"{target.__name__} does not look {name} up, so a patch of it there changes nothing.")
                value = self._watched(value, f"{target.__name__}.{name}")
        elif isinstance(value, types.FunctionType) and "fail" not in value.__code__.co_names:
            value = self._watched(value, f"{getattr(target, '__name__', target)}.{name}")
        super().setattr(target, name, value, raising)

    def check(self) -> None:
        """Fail where a replacement was never called."""
        if self.uncalled:
            pytest.fail(f"Replaced and never called: {', '.join(self.uncalled.values())}.")

    def _watched(self, value: types.FunctionType, label: str) -> Any:
        self.uncalled[id(value)] = label

        @functools.wraps(value)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.uncalled.pop(id(value), None)
            return value(*args, **kwargs)

        return call


def looked_up(module: types.ModuleType) -> set[str]:
    """Names that the code of a module looks up in it."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    return {name for value in own for code in codes(value) for name in globals_of(code)} | {"__file__"}


def codes(value: Any) -> Iterator[types.CodeType]:
    """Code of a function, and of all methods and properties of a class."""
    value = getattr(value, "__func__", value)
    value = getattr(value, "__wrapped__", value)
    if isinstance(value, type):
        for member in vars(value).values():
            yield from codes(member)
    elif isinstance(value, property):
        yield from codes(value.fget)
    elif isinstance(value, functools.cached_property):
        yield from codes(value.func)
    elif isinstance(value, types.FunctionType):
        yield value.__code__


def globals_of(code: types.CodeType) -> Iterator[str]:
    """Global names that a code, or one inside it, loads."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from globals_of(inner)
