from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ciess.errors import RunDirectoryError
from ciess.storage.checkpoint import load_checkpoint
from ciess.storage.storage import Storage
from ciess.training.checkpoint import FitCheckpoint, TrainingState, weights_of
from ciess.training.history import EpochRecord

Parts = tuple[nn.Module, nn.Module, torch.optim.Optimizer]


def parts(seed: int) -> Parts:
    """An embedding and a backbone after two steps of Adam."""
    generator = torch.Generator().manual_seed(seed)
    embedding, backbone = nn.ParameterDict({"weight": torch.empty(3, 2)}), nn.utils.skip_init(nn.Linear, 2, 2)
    parameters = [*embedding.parameters(), *backbone.parameters()]
    for parameter in parameters:
        nn.init.normal_(parameter, generator=generator)
    optimizer = torch.optim.Adam(parameters, lr=0.1, fused=True)
    for _ in range(2):
        optimizer.zero_grad()
        backbone(embedding["weight"]).square().sum().backward()
        optimizer.step()
    return embedding, backbone, optimizer


def tensors(of: Parts) -> list[Tensor]:
    embedding, backbone, optimizer = of
    slots = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    return [value.clone() for value in (*embedding.parameters(), *backbone.parameters(), *slots)]


def state_at(epoch: int) -> TrainingState:
    history = [EpochRecord(1, 0.6931471805599453, None), EpochRecord(2, 1 / 3, 0.1)]
    return TrainingState(epoch, 2, 0.1, history)


def checkpoint(folder: Storage | None, of: Parts, fingerprint: str = "a" * 64) -> FitCheckpoint:
    return FitCheckpoint(folder, fingerprint, *of)


def test_what_is_saved_is_put_back_bit_for_bit(tmp_path: Path) -> None:
    first, second = parts(0), parts(1)
    checkpoint(Storage(tmp_path), first).save(state_at(3))
    loaded = checkpoint(Storage(tmp_path), second).load()
    assert loaded == state_at(3)
    for value, expected in zip(tensors(second), tensors(first), strict=True):
        assert value.equal(expected)


def test_the_optimiser_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    first, second = parts(0), parts(1)
    checkpoint(Storage(tmp_path), first).save(state_at(3))
    checkpoint(Storage(tmp_path), second).load()
    for embedding, backbone, optimizer in (first, second):
        optimizer.zero_grad()
        backbone(embedding["weight"]).sum().backward()
        optimizer.step()
    for value, expected in zip(tensors(second), tensors(first), strict=True):
        assert value.equal(expected)


def test_the_best_weights_are_kept_beside_the_present_ones(tmp_path: Path) -> None:
    first, second = parts(0), parts(1)
    writer, best = checkpoint(Storage(tmp_path), first), tensors(first)[:3]
    writer.keep_best()
    with torch.no_grad():
        for parameter in (*first[0].parameters(), *first[1].parameters()):
            parameter.zero_()
    writer.save(state_at(3))
    reader = checkpoint(Storage(tmp_path), second)
    reader.load()
    assert all(value.eq(0).all() for value in tensors(second)[:3])
    for of, kept in ((first, writer), (second, reader)):
        kept.restore_best()
        for value, expected in zip(tensors(of)[:3], best, strict=True):
            assert value.equal(expected)


def test_without_a_best_epoch_the_weights_stay(tmp_path: Path) -> None:
    of = parts(0)
    before = tensors(of)
    checkpoint(Storage(tmp_path), of).restore_best()
    for value, expected in zip(tensors(of), before, strict=True):
        assert value.equal(expected)


def test_an_empty_folder_is_a_fresh_start(tmp_path: Path) -> None:
    assert checkpoint(Storage(tmp_path / "never written"), parts(0)).load() == TrainingState()


def test_without_a_folder_nothing_is_written_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = checkpoint(None, parts(0))
    kept.save(state_at(3))
    assert kept.load() == TrainingState()
    assert list(tmp_path.iterdir()) == []


def test_the_last_two_are_kept_in_the_form_of_all_checkpoints(tmp_path: Path) -> None:
    kept = checkpoint(Storage(tmp_path), parts(0))
    for epoch in (3, 6, 9):
        kept.save(state_at(epoch))
    assert Storage(tmp_path).names() == ["000006", "000009"]
    found, notes = load_checkpoint(Storage(tmp_path), "a" * 64)
    assert found is not None
    assert notes == []
    assert {"now.embedding.weight", "now.backbone.weight"} <= set(found["arrays"])


@pytest.mark.parametrize("dies_at", ["arrays.safetensors", "values.json", "manifest.json", "delete"])
def test_a_process_that_dies_while_it_writes_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    first = parts(0)
    for epoch in (1, 3):
        checkpoint(Storage(tmp_path), first).save(state_at(epoch))
    at_three = tensors(first)
    folder, write, delete = Storage(tmp_path), Storage.write_bytes, Storage.delete
    with torch.no_grad():
        first[0]["weight"].zero_()
    at_six = tensors(first)

    def dying(self: Storage, name: str, content: bytes) -> None:
        if name == dies_at:
            raise KeyboardInterrupt
        write(self, name, content)

    def dying_delete(self: Storage, name: str = "") -> None:
        if name and dies_at == "delete":
            raise KeyboardInterrupt
        delete(self, name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Storage, "write_bytes", dying)
        patch.setattr(Storage, "delete", dying_delete)
        checkpoint(folder, first).save(state_at(6))
    second = parts(1)
    loaded = checkpoint(Storage(tmp_path), second).load()
    assert loaded.epoch == (6 if dies_at == "delete" else 3)
    for value, expected in zip(tensors(second), at_six if dies_at == "delete" else at_three, strict=True):
        assert value.equal(expected)
    checkpoint(Storage(tmp_path), first).save(state_at(9))
    assert Storage(tmp_path).names()[-1] == "000009"


def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = checkpoint(Storage(tmp_path), parts(0))
    for epoch in (3, 6):
        kept.save(state_at(epoch))
    (tmp_path / "000006" / "arrays.safetensors").write_bytes(b"no")
    assert checkpoint(Storage(tmp_path), parts(1)).load().epoch == 3
    assert capsys.readouterr().err.replace(str(tmp_path), "OUT") == (
        "Checkpoint OUT/000006 cannot be used: arrays.safetensors has changed. Going on from OUT/000003.\n"
    )


class TestFirstFormat:
    """A run that ciess 0.1.0 began goes on."""

    @staticmethod
    def write(folder: Storage, of: Parts, state: TrainingState, fingerprint: str = "a" * 64) -> None:
        kept = {
            f"now.{name}": value.contiguous() for name, value in weights_of(embedding=of[0], backbone=of[1]).items()
        }
        folder.write_bytes("000003-training.safetensors", save(kept))
        about = {"fingerprint": fingerprint, "tensors": "000003-training.safetensors", "state": asdict(state)}
        folder.write_json("training.json", about)

    def test_it_is_read_and_replaced(self, tmp_path: Path) -> None:
        first, second = parts(0), parts(1)
        self.write(Storage(tmp_path), first, state_at(3))
        kept = checkpoint(Storage(tmp_path), second)
        assert kept.load() == state_at(3)
        for value, expected in zip(tensors(second)[:2], tensors(first)[:2], strict=True):
            assert value.equal(expected)
        kept.save(state_at(6))
        assert Storage(tmp_path).names() == ["000006"]

    def test_one_of_another_training_is_refused(self, tmp_path: Path) -> None:
        self.write(Storage(tmp_path), parts(0), state_at(3), "b" * 64)
        with pytest.raises(RunDirectoryError, match="holds the checkpoint of another training"):
            checkpoint(Storage(tmp_path), parts(0)).load()


def test_the_checkpoint_of_another_training_is_refused_and_left_alone(tmp_path: Path) -> None:
    checkpoint(Storage(tmp_path), parts(0)).save(state_at(3))
    of = parts(1)
    before = tensors(of)
    text = r"is the checkpoint of another run \(fingerprint aaaaaaaaaaaa, expected bbbbbbbbbbbb\): data, config or seed"
    with pytest.raises(RunDirectoryError, match=text):
        checkpoint(Storage(tmp_path), of, "b" * 64).load()
    for value, expected in zip(tensors(of), before, strict=True):
        assert value.equal(expected)
    assert checkpoint(Storage(tmp_path), parts(2)).load() == state_at(3)
