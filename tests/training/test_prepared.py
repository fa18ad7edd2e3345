import dataclasses
import gc
import weakref

import torch

from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.masks.sizes import full
from ciess.training import prepared
from ciess.training.fit import fit
from ciess.training.loop import FitRequest
from ciess.training.prepared import prepare

CPU = torch.device("cpu")


def test_parts_are_built_once_and_reused(tiny: Interactions) -> None:
    shared = prepare(tiny, CPU)
    assert prepare(tiny, CPU) is shared
    assert shared.graph("symmetric") is shared.graph("symmetric")
    assert shared.graph("row") is not shared.graph("symmetric")
    assert shared.sampler is shared.sampler
    assert shared.lookup("valid") is shared.lookup("valid")


def test_fits_on_the_same_data_build_nothing_anew(tiny: Interactions, small_config, monkeypatch) -> None:
    built: list[str] = []
    for name in ("build_graph", "Sampler", "PairLookup"):
        original = getattr(prepared, name)

        def counted(*arguments, name: str = name, original: type = original):
            built.append(name)
            return original(*arguments)

        monkeypatch.setattr(prepared, name, counted)
    data = dataclasses.replace(tiny)
    for seed in range(3):
        fit(data, FitRequest(small_config(), full(data.n, 16), seed, epochs=1))
    assert sorted(built) == ["PairLookup", "PairLookup", "Sampler", "build_graph"]


def test_other_data_have_parts_of_their_own(tiny: Interactions) -> None:
    merged = tiny.merged()
    assert prepare(merged, CPU) is not prepare(tiny, CPU)
    assert prepare(merged, CPU).lookup("train").counts.tolist() == [4, 3, 4, 1, 4]
    assert prepare(tiny, CPU).lookup("train").counts.tolist() == [3, 2, 2, 1, 3]


def test_parts_go_when_the_data_goes(tiny: Interactions) -> None:
    data = dataclasses.replace(tiny)
    shared = prepare(data, CPU)
    shared.graph("row"), shared.lookup("test"), shared.sampler
    dead = weakref.ref(shared)
    del shared, data
    gc.collect()
    assert dead() is None


def test_a_backbone_without_a_graph_gets_none(tiny: Interactions) -> None:
    assert prepare(tiny, CPU).graph(None) is None


def test_axes_are_kept_until_they_take_too_much_the_newest_always(tiny: Interactions, monkeypatch) -> None:
    shared = prepare(tiny, CPU)
    first, second = shared.axes(0.1, 4), shared.axes(0.2, 4)
    assert shared.axes(0.1, 4) is first and shared.axes(0.2, 4) is second
    monkeypatch.setattr(prepared, "AXES_BYTES", 2 * first.bytes)
    shared.axes(0.3, 4)
    assert shared.axes(0.2, 4) is second and shared.axes(0.1, 4) is not first
    monkeypatch.setattr(prepared, "AXES_BYTES", 0)
    newest = shared.axes(0.4, 4)
    assert shared.axes(0.4, 4) is newest


def test_a_sample_of_users_has_their_pairs_and_the_halves_of_all(planted: Planted) -> None:
    data = planted.data
    shared = prepare(data, CPU)
    reduced = shared.reduced(data, 50)
    users = shared.users(50)
    assert shared.reduced(data, 50) is reduced and reduced.n_users == 50 and reduced.n_items == data.n_items
    assert reduced.user_ids.equals(data.user_ids.take(users))
    for part in ("train", "valid", *prepared.HALVES):
        own, all_of_them = prepare(reduced, CPU).lookup(part), shared.lookup(part, 50)
        assert own.counts.equal(all_of_them.counts)
        rows = torch.arange(50)[:, None]
        items = torch.arange(data.n_items)[None]
        assert own.contains(rows, items).equal(all_of_them.contains(rows, items))
