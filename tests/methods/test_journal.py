from pathlib import Path

import pytest
import torch

from ciess.errors import RunDirectoryError
from ciess.methods.journal import Journal, Row
from ciess.storage.storage import Storage


def test_what_was_saved_last_is_found_again_with_the_rows_until_then(tmp_path: Path) -> None:
    folder, before = Storage(tmp_path), torch.arange(4.0)
    first = Journal(folder, "a" * 64)
    assert first.load() is None
    first.note(stage="search", step=1, loss=0.5)
    first.save(1, {"table": before}, {"epoch": 1})
    first.note(stage="search", step=2, loss=0.25)
    first.save(2, {"table": before + 1}, {"epoch": 2, "best": [1, 2]})
    first.note(stage="search", step=3, loss=0.125)  # lost with the process
    again = Journal(folder, "a" * 64)
    found = again.load()
    assert found is not None
    tensors, state = found
    assert torch.equal(tensors["table"], before + 1)
    assert state == {"epoch": 2, "best": [1, 2]}
    assert again.rows == [{"stage": "search", "step": step, "loss": 0.5**step} for step in (1, 2)]


def test_seconds_are_those_of_all_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    first = Journal(Storage(tmp_path), "a" * 64)
    clock[0] += 7
    first.save(1, {}, {})
    clock[0] += 1000  # nobody works on it
    again = Journal(Storage(tmp_path), "a" * 64)
    clock[0] += 50  # nor here: the checkpoint is not read yet
    again.load()
    clock[0] += 5
    assert again.seconds == 12


def test_the_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    Journal(Storage(tmp_path), "a" * 64).save(1, {}, {})
    with pytest.raises(RunDirectoryError, match="is the checkpoint of another run"):
        Journal(Storage(tmp_path), "b" * 64).load()


def test_without_a_folder_nothing_is_kept() -> None:
    seen: list[Row] = []
    journal = Journal(on_row=seen.append)
    journal.note(stage="a", step=1)
    journal.save(1, {"table": torch.ones(2)}, {})
    assert journal.load() is None
    assert seen == journal.rows == [{"stage": "a", "step": 1}]
