import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import yaml

from ciess.errors import RunDirectoryError
from ciess.storage.storage import Storage

KINDS = ["local path", "local uri", "subtree", "in memory"]


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A folder that does not exist yet, on each kind of file system."""
    if request.param == "local path":
        return Storage(tmp_path / "runs" / "a")
    if request.param == "local uri":
        return Storage((tmp_path / "runs" / "a").as_uri())
    if request.param == "subtree":
        return Storage("runs/a", pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()))
    return Storage("runs/a", pafs._MockFileSystem(datetime.datetime(2020, 1, 1)))


def test_what_is_written_is_read(storage: Storage) -> None:
    content = {"a": [1, 2.5, None], "b": {"ü": True}}
    table = pa.table({"user": ["x", "y"], "value": [0.5, None]})
    storage.write_bytes("bytes.bin", b"\x00\xff")
    storage.write_json("content.json", content)
    storage.write_yaml("content.yaml", content)
    storage.write_table("table.parquet", table)
    assert storage.read_bytes("bytes.bin") == b"\x00\xff"
    assert storage.read_json("content.json") == content
    assert storage.read_yaml("content.yaml") == content
    assert storage.read_table("table.parquet") == table


def test_a_folder_exists_once_something_is_written(storage: Storage) -> None:
    assert not storage.exists()
    assert not storage.exists("a.txt")
    assert storage.names() == []
    storage.write_bytes("a.txt", b"a")
    assert storage.exists()
    assert storage.exists("a.txt")


def test_a_file_that_is_written_again_is_replaced_and_no_part_is_left(storage: Storage) -> None:
    storage.write_bytes("a.txt", b"a long first version")
    storage.write_bytes("a.txt", b"second")
    assert storage.read_bytes("a.txt") == b"second"
    assert storage.names() == ["a.txt"]


def test_a_child_is_the_folder_below(storage: Storage) -> None:
    child = storage.child("tables", "equal-s0")
    child.write_bytes("a.txt", b"a")
    storage.write_bytes("tables/equal-s0/b.txt", b"b")
    assert child.names() == ["a.txt", "b.txt"]
    assert storage.names() == ["tables"]
    assert storage.exists("tables/equal-s0/a.txt")


def test_delete_takes_a_file_a_folder_and_what_is_not_there(storage: Storage) -> None:
    storage.write_bytes("a.txt", b"a")
    storage.child("deep", "er").write_bytes("b.txt", b"b")
    storage.delete("a.txt")
    storage.delete("deep")
    storage.delete("never was")
    assert storage.names() == []
    storage.delete()
    storage.delete()
    assert not storage.exists()


def test_a_missing_file_is_named(storage: Storage) -> None:
    with pytest.raises(RunDirectoryError, match=r"Cannot read .*runs/a/card\.json: .* Check the path: a run"):
        storage.read_json("card.json")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    storage = Storage(tmp_path / "file" / "run")
    with pytest.raises(
        RunDirectoryError, match=r"Cannot write .*file/run/a\.txt: .*Make room or choose another folder"
    ):
        storage.write_bytes("a.txt", b"a")


def test_a_reader_sees_the_old_file_while_the_new_one_is_written(tmp_path: Path, monkeypatch) -> None:
    storage = Storage(tmp_path)
    storage.write_bytes("a.txt", b"old")
    seen: list[bytes] = []

    class Watching:
        """Reads the file at the moment before the new one takes its name."""

        def __getattr__(self, name: str):
            return getattr(pafs.LocalFileSystem(), name)

        def move(self, source: str, target: str) -> None:
            assert Path(source).read_bytes() == b"new"
            seen.append(Path(target).read_bytes())
            pafs.LocalFileSystem().move(source, target)

    monkeypatch.setattr(storage, "filesystem", Watching())
    storage.write_bytes("a.txt", b"new")
    assert seen == [b"old"]
    assert (tmp_path / "a.txt").read_bytes() == b"new"


def test_files_are_plain_for_others_to_read(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write_json("a.json", {"b": 1, "a": 2})
    storage.write_yaml("a.yaml", {"b": 1, "a": "ü"})
    storage.write_table("a.parquet", pa.table({"x": [1]}))
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1, "a": 2}
    assert (tmp_path / "a.yaml").read_text(encoding="utf-8") == "b: 1\na: ü\n"
    assert yaml.safe_load((tmp_path / "a.yaml").read_text(encoding="utf-8")) == {"b": 1, "a": "ü"}
    assert pq.read_table(tmp_path / "a.parquet").to_pydict() == {"x": [1]}


def test_a_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Storage("~/run").write_bytes("a.txt", b"a")
    assert (tmp_path / "run" / "a.txt").read_bytes() == b"a"


def test_names_that_look_compressed_are_read_as_they_are(storage: Storage) -> None:
    storage.write_bytes("a.gz", b"not gzip")
    assert storage.read_bytes("a.gz") == b"not gzip"
