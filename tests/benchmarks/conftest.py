"""Scripts as modules, and planted data as a file."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ciess.data.planted import Planted

ROOT = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """script("losses"): the module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def planted_csv(planted: Planted, tmp_path: Path) -> Path:
    """All planted pairs as user_id,item_id."""
    known = planted.data.train + planted.data.valid + planted.data.test
    lines = [f"{user},{item}" for user, item in zip(known.users, known.items, strict=True)]
    path = tmp_path / "all.csv"
    path.write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    return path
