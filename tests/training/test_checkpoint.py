from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from ciess.errors import RunDirectoryError
from ciess.storage.storage import Storage
from ciess.training.checkpoint import FitCheckpoint, TrainingState
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


def test_only_the_last_tensors_are_kept(tmp_path: Path) -> None:
    kept = checkpoint(Storage(tmp_path), parts(0))
    for epoch in (3, 6, 9):
        kept.save(state_at(epoch))
    assert Storage(tmp_path).names() == ["000009-training.safetensors", "training.json"]
    assert {"now.embedding.weight", "now.backbone.weight"} <= set(
        load(Storage(tmp_path).read_bytes("000009-training.safetensors"))
    )


@pytest.mark.parametrize("dies_at", ["000006-training.safetensors", "training.json", "delete"])
def test_a_process_that_dies_while_it_writes_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    first = parts(0)
    checkpoint(Storage(tmp_path), first).save(state_at(3))
    at_three = tensors(first)
    folder, write = Storage(tmp_path), Storage.write_bytes
    with torch.no_grad():
        first[0]["weight"].zero_()
    at_six = tensors(first)

    def dying(self: Storage, name: str, content: bytes) -> None:
        if name == dies_at:
            raise KeyboardInterrupt
        write(self, name, content)

    def dying_delete(self: Storage, name: str = "") -> None:
        raise KeyboardInterrupt

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
    assert Storage(tmp_path).names() == ["000009-training.safetensors", "training.json"]


def test_the_checkpoint_of_another_training_is_refused_and_left_alone(tmp_path: Path) -> None:
    checkpoint(Storage(tmp_path), parts(0)).save(state_at(3))
    of = parts(1)
    before = tensors(of)
    text = r"holds the checkpoint of another training \(fingerprint aaaaaaaaaaaa, expected bbbbbbbbbbbb\): data, config"
    with pytest.raises(RunDirectoryError, match=text):
        checkpoint(Storage(tmp_path), of, "b" * 64).load()
    for value, expected in zip(tensors(of), before, strict=True):
        assert value.equal(expected)
    assert checkpoint(Storage(tmp_path), parts(2)).load() == state_at(3)
