import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ciess.agent.replay import Replay

COLUMNS = {"sizes": np.dtype(np.int16), "ratios": np.dtype(np.float32)}
ENTITIES = 6
LEARNABLE = np.array([True, False, True, True, False, True])


def iteration(number: int, entities: int = ENTITIES) -> dict[str, npt.NDArray[np.generic]]:
    """Columns that tell iteration and entity of each of their values."""
    codes = 100 * number + np.arange(entities)
    return {"sizes": codes.astype(np.int16), "ratios": (codes / 1000).astype(np.float32)}


def filled(capacity: int, added: int, learnable: npt.NDArray[np.bool_] = LEARNABLE) -> Replay:
    replay = Replay(capacity, COLUMNS, learnable)
    for number in range(added):
        replay.add(iteration(number, len(learnable)), label=number % 3)
    return replay


def draw(replay: Replay, count: int, seed: int = 0):
    return replay.sample(count, np.random.default_rng(seed))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 13))
def test_holds_the_last_iterations_first_in_first_out(capacity: int, entities: int, added: int) -> None:
    replay = filled(capacity, added, np.ones(entities, np.bool_))
    oracle: list[int] = []
    for number in range(added):
        oracle.append(number)
        if len(oracle) > capacity:
            oracle.pop(0)
    expected = {(100 * number + entity, entity, number % 3) for number in oracle for entity in range(entities)}
    owners, drawn = draw(replay, 1500)
    found = set(zip(drawn["sizes"].tolist(), owners.tolist(), drawn["label"].tolist(), strict=True))
    assert found == expected
    assert len(replay) == len(oracle)


def test_is_empty_at_first() -> None:
    assert len(filled(3, 0)) == 0


@pytest.mark.parametrize("added", [1, 3, 5, 8])
def test_samples_uniformly_over_held_iterations_and_learnable_entities(added: int) -> None:
    replay = filled(5, added)
    owners, drawn = draw(replay, 20_000)
    cells = [100 * number + owner for number in range(max(0, added - 5), added) for owner in np.flatnonzero(LEARNABLE)]
    counts = np.array([(drawn["sizes"] == cell).sum() for cell in cells])
    assert counts.sum() == len(owners) == 20_000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_draws_independently_of_each_other() -> None:
    owners, drawn = draw(filled(4, 4), 20_000)
    slots = drawn["sizes"] // 100
    pairs = np.zeros((16, 16))
    cells = np.searchsorted(np.flatnonzero(LEARNABLE), owners) * 4 + slots
    np.add.at(pairs, (cells[:-1:2], cells[1::2]), 1)
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_never_draws_an_unlearnable_entity() -> None:
    owners, drawn = draw(filled(5, 8), 5000)
    assert set(owners.tolist()) == set(np.flatnonzero(LEARNABLE).tolist())
    assert set((drawn["sizes"] % 100).tolist()) == set(np.flatnonzero(LEARNABLE).tolist())


def test_all_columns_of_a_draw_are_of_one_entity_and_iteration_and_bear_its_label() -> None:
    owners, drawn = draw(filled(5, 8), 5000)
    numbers = drawn["sizes"] // 100
    np.testing.assert_array_equal(drawn["sizes"] % 100, owners)
    np.testing.assert_array_equal(drawn["ratios"], (drawn["sizes"] / 1000).astype(np.float32))
    np.testing.assert_array_equal(drawn["label"], numbers % 3)
    assert set(numbers.tolist()) == {3, 4, 5, 6, 7}


def test_columns_keep_their_types() -> None:
    owners, drawn = draw(filled(2, 1), 4)
    assert {name: values.dtype for name, values in drawn.items()} == {**COLUMNS, "label": np.int64}
    assert {values.shape for values in [owners, *drawn.values()]} == {(4,)}


def test_equal_generators_draw_equally_and_others_otherwise() -> None:
    replay = filled(5, 8)
    (owners, drawn), (same_owners, same), (other_owners, _) = (draw(replay, 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(owners, same_owners)
    for name, values in drawn.items():
        np.testing.assert_array_equal(same[name], values)
    assert (owners != other_owners).any()


def test_what_was_added_stays_when_the_callers_arrays_change() -> None:
    replay, columns = Replay(2, COLUMNS, LEARNABLE), iteration(1)
    replay.add(columns)
    columns["sizes"][:] = -1
    assert draw(replay, 100)[1]["sizes"].min() >= 100


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 6))
def test_after_a_reload_all_goes_on_as_if_undisturbed(capacity: int, before: int, after: int) -> None:
    undisturbed = filled(capacity, before)
    reloaded = Replay(capacity, COLUMNS, LEARNABLE)
    reloaded.load_state_dict(undisturbed.state_dict())
    for number in range(before, before + after):
        for replay in (undisturbed, reloaded):
            replay.add(iteration(number), label=number % 3)
    assert len(reloaded) == len(undisturbed)
    expected, found = undisturbed.state_dict(), reloaded.state_dict()
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    (owners, drawn), (same_owners, same) = draw(undisturbed, 40), draw(reloaded, 40)
    np.testing.assert_array_equal(owners, same_owners)
    for name, values in drawn.items():
        np.testing.assert_array_equal(same[name], values)


def test_a_state_loads_into_a_replay_that_held_more() -> None:
    used = filled(4, 9)
    used.load_state_dict(filled(4, 2).state_dict())
    assert len(used) == 2
    assert set((draw(used, 500)[1]["sizes"] // 100).tolist()) == {0, 1}


def test_a_state_holds_nothing_but_the_iterations_held() -> None:
    state = filled(5, 2).state_dict()
    assert {name: values.shape for name, values in state.items()} == {
        "sizes": (2, ENTITIES),
        "ratios": (2, ENTITIES),
        "label": (2,),
        "added": (),
    }


def test_a_state_stays_as_it_was_when_more_is_added_on_either_side() -> None:
    replay, other = filled(2, 3), Replay(2, COLUMNS, LEARNABLE)
    state = replay.state_dict()
    expected = {name: values.copy() for name, values in state.items()}
    other.load_state_dict(state)
    for number in (7, 8):
        replay.add(iteration(number), label=2)
        other.add(iteration(number), label=2)
    for name, values in expected.items():
        np.testing.assert_array_equal(state[name], values)
