import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from biting import BitingPatch
from hypothesis import settings

from ciess import cli
from ciess.config.recommender import RecommenderConfig
from ciess.config.search import SearchConfig
from ciess.data import Interactions, Pairs
from ciess.data.planted import Planted
from ciess.data.planted import planted as make_planted

# A property that fails does so for everyone, and no test depends on how fast a machine is.
settings.register_profile("ciess", deadline=None, derandomize=True)
settings.load_profile("ciess")


@pytest.fixture
def monkeypatch() -> Iterator[BitingPatch]:
    """pytest's own, but a patch that no longer changes anything fails."""
    patch = BitingPatch()
    yield patch
    patch.undo()
    patch.check()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of the real data sets."""
    folder = os.environ.get("CIESS_DATA")
    if not folder:
        pytest.skip("CIESS_DATA does not name a folder with ml-1m, ml-100k and yelp2018")
    return Path(folder)


@pytest.fixture(scope="session")
def planted() -> Planted:
    """120 users, 80 items, 1.3 k training pairs, and which rows are needy."""
    return make_planted(0, n_users=120, n_items=80, interactions_per_user=24)


@pytest.fixture(scope="session")
def tiny() -> Interactions:
    """5 users and 7 items by hand: user 3 has nothing in validation, items 5 and 6 nothing in training."""

    def pairs(by_user: list[list[int]]) -> Pairs:
        users = np.repeat(np.arange(len(by_user)), [len(items) for items in by_user])
        return Pairs.sorted(users, np.array([item for items in by_user for item in items]))

    return Interactions(
        name="tiny",
        source="tiny",
        user_ids=pa.array([10, 11, 12, 13, 14]),
        item_ids=pa.array(list("abcdefg")),
        train=pairs([[0, 1, 2], [0, 3], [1, 4], [0], [2, 3, 4]]),
        valid=pairs([[3], [5], [2, 5], [], [6]]),
        test=pairs([[5], [], [6], [2], [0, 1]]),
        split_seed=None,
        sha256="0" * 64,
        notes=(),
    )


@pytest.fixture(scope="session")
def small_config() -> Callable[..., RecommenderConfig]:
    """small_config(backbone, model={...}, max_size=..., learning_rate=...): one CPU thread, models of few columns."""

    def make(
        backbone: str = "lightgcn",
        *,
        model: dict[str, Any] | None = None,
        max_size: int = 16,
        threads: int = 1,
        **training: Any,
    ) -> RecommenderConfig:
        # Not the tuned defaults: no test may change when these are tuned anew.
        plain = {"learning_rate": 0.01, "learning_rate_decay": 1.0, "decay": 1e-4, "batch_size": 500}
        defaults: dict[str, dict[str, Any]] = {"ngcf": {"width": 12}, "ncf": {"hidden": (16, 8)}}
        plain |= {"leave_one_out": False} if backbone == "items" else {}
        return RecommenderConfig(
            backbone=backbone,
            max_size=max_size,
            model=defaults.get(backbone, {}) | (model or {}),
            training=plain | training,
            device="cpu",
            threads=threads,
        )

    return make


@pytest.fixture(scope="session")
def small_search() -> Callable[..., SearchConfig]:
    """small_search(lanes=1, agent={"hidden": 8}, ...): three fits of equal sizes, two episodes of two iterations.

    Of `training`, `short_fit` and `agent`, only what is given changes.
    """

    def make(**changes: Any) -> SearchConfig:
        plain: dict[str, Any] = {
            "max_size": 16,
            "min_size": 1,
            "start": "fresh",
            "episodes": 2,
            "iterations": 2,
            "lanes": 2,
            "sparsities": (0.5, 0.8),
            "device": "cpu",
            "threads": 1,
            "training": {"learning_rate": 0.05, "batch_size": 500, "max_epochs": 4, "evaluate_every": 2},
            "short_fit": {"epochs": 1},
            "agent": {"hidden": 16, "batch_size": 64},
        }
        for part in ("training", "short_fit", "agent"):
            plain[part] |= changes.pop(part, {})
        return SearchConfig(**plain | changes)

    return make


@pytest.fixture(scope="session")
def pyg() -> ModuleType:
    """torch_geometric, whose import still uses what torch 2.13 deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import torch_geometric.nn
    return torch_geometric


@pytest.fixture
def ciess(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """ciess("data", path, ...): exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: Any) -> tuple[int, str, str]:
        status = 0
        capsys.readouterr()
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            assert end.code is None or isinstance(end.code, int)
            status = end.code or 0
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def refusal(ciess: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Callable[..., str]:
    """The text of a refusal: one paragraph on stderr, nothing on stdout, exit code 2."""

    def call(*arguments: Any) -> str:
        status, out, err = ciess(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("ciess: ")
        assert err.endswith(".\n")
        assert err.count("\n") == 1
        return err.removeprefix("ciess: ").removesuffix("\n").replace(str(tmp_path), "TMP")

    return call
