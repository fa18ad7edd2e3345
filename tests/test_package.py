import ast
import importlib.util
import inspect
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import ciess

PUBLIC = {
    *("read", "fit", "fit_tables", "run_search", "retrain", "load", "planted"),
    *("Search", "Proposal", "Outcome", "Environment", "Interactions", "CompressedTable", "FitRequest", "FitResult"),
    *("DataConfig", "FitConfig", "RecommenderConfig", "RetrainConfig", "SearchConfig", "CiessError"),
}
"""What a program of another may rely on."""


def in_a_new_process(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["ciess", "ciess.cli"])
def test_import_is_quick(module: str) -> None:
    in_a_new_process(f"import {module}, sys; assert 'ray' not in sys.modules and 'torch' not in sys.modules")


def test_no_command_needs_ray() -> None:
    in_a_new_process(
        "import sys; sys.modules['ray'] = None\n"
        "import ciess.cli.recommend, ciess.cli.doctor, ciess.bench.step, ciess.bench.search, ciess.tables.table\n"
        "import ciess.runs.fit, ciess.runs.search, ciess.runs.retrain, ciess.runs.status, ciess.runs.figures\n"
        "[getattr(ciess, name) for name in ciess.__all__]"
    )


@pytest.mark.parametrize("name", ciess.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ciess, name).__name__ == name
    assert getattr(ciess, name).__module__.startswith("ciess.")


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(AttributeError) as caught:
        ciess.Fitresult  # noqa: B018
    assert str(caught.value) == f"module 'ciess' has no attribute 'Fitresult'; it has {', '.join(ciess.__all__)}"


def callables(name: str) -> list[tuple[str, Any]]:
    """A public name, and its public methods and properties."""
    thing = getattr(ciess, name)
    if not inspect.isclass(thing):
        return [(name, thing)]
    members = [(member, value) for member, value in vars(thing).items() if not member.startswith("_")]
    members = [(member, getattr(value, "__func__", value)) for member, value in members]
    members = [(member, value) for member, value in members if inspect.isfunction(value) or isinstance(value, property)]
    return [(name, thing), *((f"{name}.{member}", value) for member, value in members)]


def missing(label: str, thing: Any) -> Iterator[str]:
    """What a docstring does not say."""
    text = inspect.getdoc(thing) or ""
    if len(text) < 20:
        yield f"{label} says next to nothing"
    if inspect.isclass(thing):
        fields = [] if issubclass(thing, BaseModel) else getattr(thing, "__dataclass_fields__", {})
        # A field is described once, by the class that declares it.
        told = "\n".join(base.__doc__ or "" for base in thing.__mro__)
        yield from (f"{label} does not describe {field}" for field in fields if f"    {field}: " not in told)
    elif inspect.isfunction(thing):
        signature = inspect.signature(thing)
        names = [name for name in signature.parameters if name not in ("self", "cls")]
        yield from (f"{label} does not describe {name}" for name in names if f"    {name}: " not in text)
        if signature.return_annotation not in (None, "None") and "Returns:" not in text:
            yield f"{label} does not say what it returns"
        raised = set(re.findall(r"raise (\w+Error)\(", inspect.getsource(thing)))
        yield from (f"{label} does not say that it raises {error}" for error in raised if f"    {error}: " not in text)
    function = thing.fget if isinstance(thing, property) else thing
    if inspect.isfunction(function):
        arrays = re.search(r"NDArray|Tensor|Floats|Codes", str(inspect.signature(function)))
        if arrays and not re.search(r"(float|int|bool)\d*\[", text):
            yield f"{label} does not give the shape of an array"


def test_public_names() -> None:
    assert set(ciess.__all__) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_docstrings_say_shapes_errors_and_all_parameters(name: str) -> None:
    assert [text for label, thing in callables(name) for text in missing(label, thing)] == []


@pytest.mark.parametrize("name", [name for name in sorted(PUBLIC) if name.endswith("Config")])
def test_every_public_setting_says_what_it_is(name: str) -> None:
    (body,) = [
        node for node in ast.walk(ast.parse(inspect.getsource(getattr(ciess, name)))) if isinstance(node, ast.ClassDef)
    ]
    told = {
        before.target.id
        for before, after in itertools.pairwise(body.body)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }
    own = {
        item.target.id for item in body.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    assert told == own


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("def f(x: int) -> int:\n    '''Double a number of things.'''", "f does not describe x"),
        ("def f() -> int:\n    '''Count a number of things.'''", "f does not say what it returns"),
        ("def f() -> None:\n    '''Draw.'''", "f says next to nothing"),
    ],
)
def test_what_is_missing_is_seen(code: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("module", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert text in list(missing("f", module.f))
