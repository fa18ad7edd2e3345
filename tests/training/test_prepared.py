import dataclasses
import gc
import weakref

import torch

from ciess.data import Interactions
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
