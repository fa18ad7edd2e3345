"""Figures of a search, drawn anew from its run directory."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.config.search import SearchConfig
from ciess.data.planted import Planted
from ciess.errors import RunDirectoryError
from ciess.runs.figures import write_search_figures
from ciess.runs.search import run_search

Small = Callable[..., SearchConfig]
Call = Callable[..., Any]


class TestPictures:
    def test_they_are_drawn_from_the_run_directory_alone(
        self, planted: Planted, tmp_path: Path, small_search: Small
    ) -> None:
        run, other = tmp_path / "run", tmp_path / "other"
        for out in (run, other):
            run_search(planted.data, small_search(), str(out))
        shutil.rmtree(run / "figures", ignore_errors=True)
        written = write_search_figures(str(run), str(other))
        assert [Path(path).name for path in written] == ["search.png", "iterations.png", "visited.png"]
        assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in written)

    def test_a_folder_without_a_search(self, tmp_path: Path) -> None:
        with pytest.raises(RunDirectoryError) as caught:
            write_search_figures(str(tmp_path))
        assert str(caught.value) == (
            f"{tmp_path} holds no search to draw: history.parquet of `ciess search` was expected. Check the path, or "
            "start one with `ciess search DATA --out DIR`."
        )
