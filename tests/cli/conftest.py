"""What commands read and what they leave: small inputs, quick runs, each made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv

from ciess.cli import main
from ciess.data.planted import Planted
from ciess.runs import search as search_run


@pytest.fixture(scope="session")
def boxed() -> Callable[[str], str]:
    """boxed(text): what stands in a box that tyro drew, in one line."""
    return lambda text: " ".join(text.replace("│", " ").split())


@pytest.fixture(scope="session")
def write() -> Callable[[Path, str | bytes], Path]:
    """write(path, content): the path of a file that now has this content."""

    def call(path: Path, content: str | bytes) -> Path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return call


@pytest.fixture(scope="session")
def ratings(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted data as a CSV file whose users are names and whose items are numbers."""
    data = planted.data
    pairs = data.train + data.valid + data.test
    table = {
        "who": [f"u{user:03d}" for user in pairs.users.tolist()],
        "what": data.item_ids.take(pa.array(pairs.items)).to_pylist(),
    }
    path = tmp_path_factory.mktemp("data") / "ratings.csv"
    csv.write_csv(pa.table(table), path)
    return path


@pytest.fixture(scope="session")
def columns() -> list[str]:
    """Options that name the columns of `ratings`."""
    return ["--user-column", "who", "--item-column", "what"]


@pytest.fixture(scope="session")
def quick_fit() -> list[str]:
    """Options of a fit of two epochs."""
    return [
        *("--max-size", "16", "--sparsity", "0.8", "--threads", "1", "--device", "cpu", "--start", "fresh"),
        *("--training.batch-size", "500", "--training.max-epochs", "2", "--training.evaluate-every", "1"),
    ]


@pytest.fixture(scope="session")
def finished(ratings: Path, tmp_path_factory: pytest.TempPathFactory, columns: list[str], quick_fit: list[str]) -> Path:
    """A run directory with one table."""
    out = tmp_path_factory.mktemp("runs") / "es"
    main(["fit", str(ratings), "--out", str(out), *columns, *quick_fit])
    return out


@pytest.fixture
def table(finished: Path, tmp_path: Path) -> Path:
    """A saved table that may be damaged."""
    shutil.copytree(finished / "tables" / "equal-c80-s0", tmp_path / "table")
    return tmp_path / "table"


@pytest.fixture(scope="session")
def quick_search() -> list[str]:
    """Options of a search of four episodes of four iterations."""
    return [
        *(
            "--preset",
            "paper",
            "--max-size",
            "16",
            "--sparsities",
            "0.5",
            "0.8",
            "--episodes",
            "4",
            "--iterations",
            "4",
            "--lanes",
            "2",
        ),
        *("--threads", "1", "--device", "cpu", "--training.learning-rate", "0.05", "--training.batch-size", "500"),
        *("--training.max-epochs", "6", "--training.evaluate-every", "2", "--short-fit.epochs", "2"),
        *("--agent.hidden", "16", "--agent.batch-size", "64"),
    ]


@pytest.fixture(scope="session")
def short_fits() -> int:
    """Short fits of `quick_search`: three choices of equal sizes, four episodes of four iterations."""
    return 3 + 4 * 4


@pytest.fixture(scope="session")
def interactions(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted data as a CSV file."""
    pairs = planted.data.train + planted.data.valid + planted.data.test
    lines = [f"{user},{item}" for user, item in zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)]
    path = tmp_path_factory.mktemp("data") / "interactions.csv"
    path.write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    return path


@pytest.fixture(scope="session")
def undisturbed(interactions: Path, tmp_path_factory: pytest.TempPathFactory, quick_search: list[str]) -> Path:
    """Run directory of a search that nobody interrupted."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_run, "search_figures", lambda *_: {})
        main(["search", str(interactions), "--out", str(out), *quick_search])
    return out


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these searches."""
    monkeypatch.setattr(search_run, "search_figures", lambda *_: {})
