import errno
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest

from ciess.errors import RunDirectoryError
from ciess.storage.checkpoint import ARRAYS, MANIFEST, VALUES, last_number, load_checkpoint, save_checkpoint
from ciess.storage.storage import Storage

OWNER = "0123456789abcdef" * 4
FILES = (ARRAYS, VALUES, MANIFEST)


def state(number: int) -> dict[str, Any]:
    generator = np.random.Generator(np.random.PCG64(number))
    arrays = {
        "float32": generator.normal(size=(3, 4)).astype(np.float32),
        "float64": generator.normal(size=5),
        "int16": generator.integers(-9, 9, (2, 3)).astype(np.int16),
        "int64": np.array([number, -(2**62)]),
        "bool": generator.random(7) < 0.5,
        "uint8": np.arange(3, dtype=np.uint8),
        "single": np.array(1.5),
        "empty": np.empty((0, 4), np.int16),
    }
    return {"arrays": arrays, "values": {"round": number, "prices": [0.1 + 0.2, 1e-300], "told": [[0, 1, None]]}}


def assert_same(found: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    assert found is not None
    assert found["values"] == expected["values"]
    assert found["arrays"].keys() == expected["arrays"].keys()
    for name, values in expected["arrays"].items():
        assert (found["arrays"][name].dtype, found["arrays"][name].shape) == (values.dtype, values.shape), name
        assert found["arrays"][name].tobytes() == values.tobytes(), name


def load(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    found, notes = load_checkpoint(Storage(folder), OWNER)
    return found, [note.replace(str(folder), "CHECKPOINTS") for note in notes]


def refusal(folder: Path, owner: str = OWNER) -> str:
    with pytest.raises(RunDirectoryError) as caught:
        load_checkpoint(Storage(folder), owner)
    return str(caught.value).replace(str(folder), "CHECKPOINTS")


def save(folder: Path, *numbers: int) -> None:
    for number in numbers:
        save_checkpoint(Storage(folder), number, state(number), OWNER)


class FullDisk:
    """A file system whose disk is full once so many files were begun; the one that is too much is cut in half."""

    def __init__(self, files: int) -> None:
        self.local, self.left = pafs.LocalFileSystem(), files

    def __getattr__(self, name: str) -> Any:
        return getattr(self.local, name)

    def open_output_stream(self, path: str) -> Any:
        stream = self.local.open_output_stream(path)
        self.left -= 1
        return stream if self.left >= 0 else _Full(stream)


class _Full:
    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __enter__(self) -> "_Full":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def write(self, content: bytes) -> None:
        self.stream.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the process just before it writes this file."""
    write = Storage.write_bytes

    def write_or_die(storage: Storage, file: str, content: bytes) -> None:
        if file == name:
            raise Killed
        write(storage, file, content)

    monkeypatch.setattr(Storage, "write_bytes", write_or_die)


class TestRoundTrip:
    def test_all_bits_come_back(self, tmp_path: Path) -> None:
        save(tmp_path, 7)
        found, notes = load(tmp_path)
        assert_same(found, state(7))
        assert notes == []

    def test_arrays_that_do_not_lie_in_order(self, tmp_path: Path) -> None:
        """Columns of a larger array, and a transposed one: their bytes in memory are not those of the array."""
        plain = np.arange(24.0).reshape(4, 6)
        arrays = {"columns": plain[:, 1:3], "turned": plain.T, "backwards": plain[::-1]}
        save_checkpoint(Storage(tmp_path), 1, {"arrays": arrays, "values": {}}, OWNER)
        found, _ = load(tmp_path)
        assert found is not None
        for name, values in arrays.items():
            np.testing.assert_array_equal(found["arrays"][name], values)

    def test_without_any(self, tmp_path: Path) -> None:
        assert load(tmp_path / "none") == (None, [])
        assert last_number(Storage(tmp_path / "none")) == 0

    def test_the_last_two_are_kept(self, tmp_path: Path) -> None:
        save(tmp_path, 1, 2, 3, 10)
        assert Storage(tmp_path).names() == ["000003", "000010"]
        assert_same(load(tmp_path)[0], state(10))
        assert last_number(Storage(tmp_path)) == 10

    def test_files_of_others_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("kept")
        save(tmp_path, 1, 2, 3)
        assert (tmp_path / "notes.txt").read_text() == "kept"
        assert_same(load(tmp_path)[0], state(3))


class TestCutShort:
    @pytest.mark.parametrize("name", FILES)
    def test_a_kill_leaves_the_one_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        save(tmp_path, 4, 5)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_at(name, patch)
            save(tmp_path, 6)
        assert last_number(Storage(tmp_path)) == 5
        found, notes = load(tmp_path)
        assert_same(found, state(5))
        if name != ARRAYS:
            assert notes == [
                "Checkpoint CHECKPOINTS/000006 cannot be used: it has no manifest, so its writing was cut short. Going "
                "on from CHECKPOINTS/000005."
            ]
        # What was cut short is written again.
        save(tmp_path, 6)
        assert load(tmp_path)[1] == []
        assert_same(load(tmp_path)[0], state(6))
        assert Storage(tmp_path).names() == ["000005", "000006"]

    @pytest.mark.parametrize("name", FILES)
    def test_of_the_very_first_nothing_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_at(name, patch)
            save(tmp_path, 1)
        found, notes = load(tmp_path)
        assert found is None
        if name != ARRAYS:
            assert notes == [
                "Checkpoint CHECKPOINTS/000001 cannot be used: it has no manifest, so its writing was cut short. It "
                "was the first one, so all begins from the start."
            ]

    @pytest.mark.parametrize("files", range(3))
    def test_a_full_disk(self, tmp_path: Path, files: int) -> None:
        save(tmp_path, 1, 2)
        full: Any = FullDisk(files)
        with pytest.raises(RunDirectoryError) as caught:
            save_checkpoint(Storage(tmp_path, full), 3, state(3), OWNER)
        text = str(caught.value).replace(str(tmp_path), "CHECKPOINTS")
        assert text == (
            f"Cannot write CHECKPOINTS/000003/{FILES[files]}: [Errno 28] No space left on device. The output needs a "
            "folder that can be written, with free space. Make room or choose another folder."
        )
        assert not list(tmp_path.rglob("*.part"))
        assert_same(load(tmp_path)[0], state(2))
        for name in ("000001", "000002"):
            assert {path.name for path in (tmp_path / name).iterdir()} == set(FILES)
        save(tmp_path, 3)
        assert_same(load(tmp_path)[0], state(3))


def damage(place: Path, name: str, how: str) -> None:
    path = place / name
    if how == "missing":
        path.unlink()
    elif how == "changed":
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
    else:
        path.write_text(how)


DAMAGES = [
    (ARRAYS, "changed", "arrays.safetensors has changed"),
    (VALUES, "changed", "values.json has changed"),
    (ARRAYS, "missing", "arrays.safetensors is missing"),
    (VALUES, "missing", "values.json is missing"),
    (MANIFEST, "missing", "it has no manifest, so its writing was cut short"),
    *(
        (MANIFEST, content, "its manifest is damaged")
        for content in (
            *("", "{", "[]", "null", "{}", "\N{LATIN SMALL LETTER E WITH ACUTE}"),
            f'{{"fingerprint": "{OWNER}"}}',
            f'{{"fingerprint": "{OWNER}", "sha256": {{}}}}',
            f'{{"fingerprint": "{OWNER}", "sha256": {{"values.json": "0"}}}}',
            f'{{"fingerprint": "{OWNER}", "sha256": "text"}}',
        )
    ),
]


class TestDamage:
    @pytest.mark.parametrize(("name", "how", "text"), DAMAGES, ids=range(len(DAMAGES)))
    def test_the_last_good_one_is_used_and_this_is_said(self, tmp_path: Path, name: str, how: str, text: str) -> None:
        save(tmp_path, 8, 9)
        damage(tmp_path / "000009", name, how)
        found, notes = load(tmp_path)
        assert_same(found, state(8))
        assert notes == [f"Checkpoint CHECKPOINTS/000009 cannot be used: {text}. Going on from CHECKPOINTS/000008."]
        # Going on, the damaged one is overwritten, and a good one is there at any time.
        save(tmp_path, 9)
        assert Storage(tmp_path).names() == ["000008", "000009"]
        assert_same(load(tmp_path)[0], state(9))

    def test_all_damage_is_said(self, tmp_path: Path) -> None:
        for number in (1, 2, 3):
            save(tmp_path / str(number), number)
            (tmp_path / str(number) / f"{number:06d}").rename(tmp_path / f"{number:06d}")
            (tmp_path / str(number)).rmdir()
        damage(tmp_path / "000003", MANIFEST, "missing")
        damage(tmp_path / "000002", VALUES, "changed")
        found, notes = load(tmp_path)
        assert_same(found, state(1))
        assert notes == [
            "Checkpoint CHECKPOINTS/000003 cannot be used: it has no manifest, so its writing was cut short.",
            "Checkpoint CHECKPOINTS/000002 cannot be used: values.json has changed. Going on from CHECKPOINTS/000001.",
        ]
        save(tmp_path, 2)
        assert_same(load(tmp_path)[0], state(2))
        assert Storage(tmp_path).names() == ["000001", "000002"]

    def test_none_is_good(self, tmp_path: Path) -> None:
        save(tmp_path, 8, 9)
        damage(tmp_path / "000009", ARRAYS, "missing")
        damage(tmp_path / "000008", MANIFEST, "{")
        assert refusal(tmp_path) == (
            "Checkpoint CHECKPOINTS/000009 cannot be used: arrays.safetensors is missing. Checkpoint "
            "CHECKPOINTS/000008 cannot be used: its manifest is damaged. At least one whole checkpoint was expected. "
            "Restore the files, or delete CHECKPOINTS to begin again from the start, which gives the same results."
        )

    def test_a_lone_one_that_is_not_the_first(self, tmp_path: Path) -> None:
        """Fits were lost, so the user must hear of it before they are made again."""
        save(tmp_path, 8)
        damage(tmp_path / "000008", MANIFEST, "missing")
        assert "At least one whole checkpoint was expected." in refusal(tmp_path)

    def test_one_of_another_search(self, tmp_path: Path) -> None:
        save(tmp_path, 8)
        assert refusal(tmp_path, "f" * 64) == (
            "CHECKPOINTS/000008 is the checkpoint of another run (fingerprint 0123456789ab, expected ffffffffffff): "
            "data, config or seed differ. Choose another --out, or start anew with --overwrite."
        )
