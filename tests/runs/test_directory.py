from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.config.search import SearchConfig
from ciess.data.planted import Planted
from ciess.data.planted import planted as make_planted
from ciess.errors import RunDirectoryError
from ciess.runs.directory import check_data, holds_run, open_run, resolved
from ciess.storage.storage import Storage

FIT = FitConfig(threads=1)
SEARCH = SearchConfig(threads=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def open_again(planted: Planted, out: Path, config: Any, **options: Any) -> None:
    open_run(Storage(out), planted.data, config, DataConfig(), resume=True, **options)


class TestHoldsRun:
    def test_a_run_does(self, planted: Planted, tmp_path: Path) -> None:
        open_run(Storage(tmp_path), planted.data, SEARCH, DataConfig())
        assert holds_run(Storage(tmp_path))

    @pytest.mark.parametrize(
        "content", [None, "", "- a list\n", "broken: [yaml\n", "theme: dark\n", "config: {}\ndata: {}\n"]
    )
    def test_other_folders_do_not(self, tmp_path: Path, content: str | None) -> None:
        if content is not None:
            (tmp_path / "config.yaml").write_text(content)
        assert not holds_run(Storage(tmp_path))


class TestResume:
    def test_the_same_run(self, planted: Planted, tmp_path: Path) -> None:
        open_run(Storage(tmp_path), planted.data, SEARCH, DataConfig())
        before = contents(tmp_path)
        open_again(planted, tmp_path, SEARCH)
        assert contents(tmp_path) == before

    def test_what_may_change_is_merged(self, planted: Planted, tmp_path: Path) -> None:
        open_run(Storage(tmp_path), planted.data, SEARCH, DataConfig())
        seen = []

        def merge(before: int, now: int) -> int:
            seen.append((before, now))
            return before + now

        longer = SEARCH.model_copy(update={"episodes": 40})
        open_again(planted, tmp_path, longer, may_change={"episodes": merge})
        assert seen == [(30, 40)]
        written = Storage(tmp_path).read_yaml("config.yaml")["config"]
        assert written == resolved(SEARCH, DataConfig())["config"] | {"episodes": 70}

    def test_a_merge_that_refuses_leaves_all_as_it_was(self, planted: Planted, tmp_path: Path) -> None:
        open_run(Storage(tmp_path), planted.data, SEARCH, DataConfig())
        before = contents(tmp_path)

        def refuse(_before: int, _now: int) -> int:
            raise RunDirectoryError("no")

        with pytest.raises(RunDirectoryError):
            open_again(planted, tmp_path, SEARCH, may_change={"episodes": refuse})
        assert contents(tmp_path) == before

    @pytest.mark.parametrize(("first", "second"), [(FIT, SEARCH), (SEARCH, FIT)], ids=["fit", "search"])
    def test_the_run_of_another_command(self, planted: Planted, tmp_path: Path, first: Any, second: Any) -> None:
        open_run(Storage(tmp_path), planted.data, first, DataConfig())
        before = contents(tmp_path)
        with pytest.raises(RunDirectoryError) as caught:
            open_again(planted, tmp_path, second, may_change={})
        assert str(caught.value) == (
            f"{tmp_path} holds a run of another command or version of ciess: one of the two has no agent, "
            "budget_mode, candidate_buckets, .... The same ones were expected. Give the command and version that the "
            "run was made with, or choose another --out."
        )
        assert contents(tmp_path) == before

    def test_other_settings_where_none_may_change(self, planted: Planted, tmp_path: Path) -> None:
        open_run(Storage(tmp_path), planted.data, SEARCH, DataConfig())
        with pytest.raises(RunDirectoryError) as caught:
            open_again(planted, tmp_path, SEARCH.model_copy(update={"lanes": 2}))
        assert str(caught.value) == (
            f"{tmp_path} was made with other settings: config.lanes was 1, now 2. The same ones were expected. Give "
            "the old values, or choose another --out."
        )

    def test_a_run_that_was_killed_as_it_was_made(self, planted: Planted, tmp_path: Path) -> None:
        """data.json is written after config.yaml."""
        open_run(Storage(tmp_path), planted.data, SEARCH, DataConfig())
        before = contents(tmp_path)
        (tmp_path / "data.json").unlink()
        open_again(planted, tmp_path, SEARCH)
        assert contents(tmp_path) == before


def test_data_is_told_by_its_checksum(planted: Planted, tmp_path: Path) -> None:
    run = Storage(tmp_path)
    open_run(run, planted.data, SEARCH, DataConfig())
    check_data(run, planted.data)
    with pytest.raises(RunDirectoryError, match="was made from data with sha256"):
        check_data(run, make_planted(5, n_users=40, n_items=40, interactions_per_user=10).data)


class ReadOnly:
    """A file system on which nothing can be deleted."""

    def __init__(self) -> None:
        self.local = pafs.LocalFileSystem()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.local, name)

    def delete_dir(self, path: str) -> None:
        raise PermissionError(13, "Permission denied")


def test_a_run_that_cannot_be_deleted(planted: Planted, tmp_path: Path) -> None:
    open_run(Storage(tmp_path), planted.data, SEARCH, DataConfig())
    before = contents(tmp_path)
    read_only: Any = ReadOnly()
    with pytest.raises(RunDirectoryError) as caught:
        open_run(Storage(tmp_path, read_only), planted.data, SEARCH, DataConfig(), overwrite=True)
    assert str(caught.value) == (
        f"Cannot delete {tmp_path}: [Errno 13] Permission denied. --overwrite needs a folder that can be written. "
        "Choose another --out, or check the access rights."
    )
    assert contents(tmp_path) == before
