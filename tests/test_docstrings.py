"""One dialect for what is public: the sections of Google's style."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ciess

PACKAGE = Path(ciess.__file__).parent
SECTIONS = ("Args:", "Attributes:", "Returns:", "Yields:", "Raises:")
Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(tree: ast.AST) -> Iterator[Documented]:
    """Functions, classes and methods whose names and owners' names have no underscore in front."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Documented) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def parameters(node: Documented) -> list[str]:
    """Names of a function's parameters, or of a class's annotated fields."""
    if isinstance(node, ast.ClassDef):
        fields = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
        return [target.id for target in fields if isinstance(target, ast.Name)]
    arguments = [*node.args.posonlyargs, *node.args.args, node.args.vararg, *node.args.kwonlyargs, node.args.kwarg]
    return [argument.arg for argument in arguments if argument is not None and argument.arg not in ("self", "cls")]


def parts(docstring: str) -> dict[str, str]:
    """Text by section; what stands before the first one is under ""."""
    found, name = {"": ""}, ""
    for line in inspect.cleandoc(docstring).splitlines():
        if line in SECTIONS:
            name = line
            found[name] = ""
        else:
            found[name] += line + "\n"
    return found


def problems(node: Documented) -> Iterator[str]:
    docstring = ast.get_docstring(node)
    if docstring is None:
        return
    text = parts(docstring)
    prose = text[""]
    if re.search(r"\bRaises [A-Z]\w*Error\b", prose):
        yield "says in prose what it raises"
    for name in parameters(node):
        if re.search(rf"(^|\. |, )`?{name}`?: ", prose, flags=re.M):
            yield f"describes {name} in prose"
    for section in ("Args:", "Attributes:"):
        named = re.findall(r"^    (\w+): ", text.get(section, ""), flags=re.M)
        unknown = set(named) - set(parameters(node))
        if unknown and (section == "Args:" and not isinstance(node, ast.ClassDef)):
            yield f"describes {', '.join(sorted(unknown))}, which it does not take"


@pytest.mark.parametrize("wing", sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}))
def test_public_docstrings_keep_parameters_and_errors_in_sections(wing: str) -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] == wing:
            for node in public(ast.parse(path.read_text(encoding="utf-8"))):
                found += [f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name} {text}" for text in problems(node)]
    assert found == []


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ('def f(x):\n    """Do.\n\n    x: float32[n].\n    """', "describes x in prose"),
        ('def f(x):\n    """Do. Raises InputError where x is odd."""', "says in prose what it raises"),
        ('def f(x):\n    """Do.\n\n    Args:\n        y: float32[n].\n    """', "describes y, which it does not take"),
        ('class C:\n    """It.\n\n    x: float32[n].\n    """\n    x: int', "describes x in prose"),
    ],
)
def test_other_dialects_are_seen(code: str, problem: str) -> None:
    (node,) = public(ast.parse(code))
    assert list(problems(node)) == [problem]


def test_sections_are_taken() -> None:
    docstring = "Do.\n\n    Args:\n        x: float32[n].\n\n    Raises:\n        InputError: x is odd.\n    "
    code = f'def f(x):\n    """{docstring}"""'
    (node,) = public(ast.parse(code))
    assert list(problems(node)) == []
