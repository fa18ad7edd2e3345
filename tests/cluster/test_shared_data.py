"""The interactions in every process: as they were read, its own copy, or a clear refusal of other ones."""

from pathlib import Path

import numpy as np
import pytest

from ciess.cluster import shared_data as shared_data
from ciess.cluster.shared_data import SharedData, this_node
from ciess.config.data import DataConfig
from ciess.data import Interactions, planted, read
from ciess.errors import DataError

PARTS = ("train", "valid", "test")


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_data, "this_node", lambda: "10.0.0.7")


def write(path: Path, n_users: int) -> None:
    """A user has met all items whose code its own divides, and the first eight."""
    lines = [f"u{user},i{item}" for user in range(1, n_users + 1) for item in range(30) if item < 8 or item % user == 0]
    path.write_text("\n".join(["user_id,item_id", *lines]) + "\n")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "met.csv", 6)
    return tmp_path / "met.csv"


@pytest.fixture
def data(path: Path) -> Interactions:
    return read(str(path), split_seed=3)


def assert_equal(found: Interactions, expected: Interactions) -> None:
    assert (found.sha256, found.name, found.split_seed) == (expected.sha256, expected.name, expected.split_seed)
    assert found.user_ids.equals(expected.user_ids)
    assert found.item_ids.equals(expected.item_ids)
    for part in PARTS:
        for name in ("users", "items"):
            values = [getattr(getattr(data, part), name) for data in (found, expected)]
            np.testing.assert_array_equal(*values, strict=True)


class TestFromTheDriver:
    def test_each_process_gets_a_copy_of_its_own(self, data: Interactions, path: Path) -> None:
        """Memory of Ray's object store is read-only, and shared with the processes beside."""
        for part in PARTS:
            for values in (getattr(data, part).users, getattr(data, part).items):
                values.flags.writeable = False
        shared = SharedData.of(data, DataConfig(split_seed=3), "driver")
        path.unlink()
        first, second = shared.load(), shared.load()
        assert_equal(first, data)
        for part in PARTS:
            for name in ("users", "items"):
                values = [getattr(getattr(found, part), name) for found in (first, second, data)]
                assert values[0].flags.writeable
                assert not any(np.shares_memory(values[0], other) for other in values[1:])
        first.train.users[:] = 0
        assert_equal(second, data)

    def test_no_path_is_looked_at(self, data: Interactions) -> None:
        assert SharedData.of(data, DataConfig(), "driver").path == ""


class TestByEachProcess:
    def test_it_reads_what_the_driver_read_with_the_same_options(self, data: Interactions) -> None:
        shared = SharedData.of(data, DataConfig(split_seed=3), "workers")
        assert shared.interactions is None
        assert_equal(shared.load(), data)

    def test_the_options_matter(self, data: Interactions) -> None:
        """Another split of the same file has the same checksum, so the options go with the path."""
        other = SharedData.of(data, DataConfig(split_seed=4), "workers").load()
        assert other.sha256 == data.sha256
        assert other.train.items.tolist() != data.train.items.tolist()

    def test_embedded_data(self) -> None:
        data = planted(split_seed=1).data
        found = SharedData.of(data, DataConfig(split_seed=1), "workers").load()
        assert_equal(found, data)

    def test_a_path_that_this_node_does_not_see(self, data: Interactions, path: Path) -> None:
        shared = SharedData.of(data, DataConfig(), "workers")
        path.unlink()
        with pytest.raises(DataError) as own:
            read(str(path))
        with pytest.raises(DataError) as caught:
            shared.load()
        assert str(path) in str(own.value)
        assert str(caught.value) == (
            f"Node 10.0.0.7 cannot read the data: {own.value} With --read-data-on workers every node must see the same "
            "path; give a shared folder or a URI, or leave the option out to send the data through Ray."
        )

    def test_a_path_that_shows_other_data(self, data: Interactions, path: Path) -> None:
        shared = SharedData.of(data, DataConfig(), "workers")
        write(path, 7)
        other = read(str(path)).sha256
        assert other != data.sha256
        with pytest.raises(DataError) as caught:
            shared.load()
        assert str(caught.value) == (
            f"Node 10.0.0.7 finds other data at {path}: sha256 {other[:12]}, expected {data.sha256[:12]}, as the "
            "driver read. Give a path that shows the same file on every node."
        )


class TestNode:
    def test_it_is_an_address(self) -> None:
        parts = this_node().split(".")
        assert len(parts) == 4
        assert all(0 <= int(part) < 256 for part in parts)
