"""Who fits what: no fit is lent twice, none is forgotten, and a lost group's fits are free again."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciess.cluster.leases import Leases, Worker
from ciess.search.proposals import Proposal, Slot


def proposals(lanes: int, iteration: int = 1) -> list[Proposal]:
    return [Proposal(lane, lane + 1, iteration, np.ones(3, np.int16)) for lane in range(lanes)]


def worker(rank: int) -> Worker:
    return Worker(1000 + rank, f"10.0.0.{rank}")


def lent(leases: Leases, rank: int, open_ones: list[Proposal]) -> Slot | None:
    proposal = leases.lend(rank, open_ones)
    return None if proposal is None else proposal.slot


@pytest.fixture
def leases() -> Leases:
    """Two workers of incarnation 7 are there."""
    found = Leases()
    for rank in (0, 1):
        found.hello(rank, 7, worker(rank))
    return found


class TestLending:
    def test_each_worker_gets_a_fit_of_its_own_in_the_order_of_the_round(self, leases: Leases) -> None:
        asked = proposals(2)
        assert [lent(leases, rank, asked) for rank in (1, 0)] == [asked[0].slot, asked[1].slot]
        assert {slot: lease.rank for slot, lease in leases.held.items()} == {asked[0].slot: 1, asked[1].slot: 0}

    def test_asking_again_gives_the_same_fit(self, leases: Leases) -> None:
        """A question whose answer was lost is asked again; it must not take a second fit from the others."""
        asked = proposals(3)
        lent(leases, 0, asked)
        mine = leases.lend(1, asked)
        assert mine is asked[1]
        since = leases.held[asked[1].slot].since
        assert [leases.lend(1, asked) for _ in range(3)] == [mine] * 3
        assert leases.held[asked[1].slot].since == since
        assert set(leases.held) == {asked[0].slot, asked[1].slot}

    def test_nobody_gets_what_another_holds(self, leases: Leases) -> None:
        asked = proposals(1)
        assert lent(leases, 0, asked) == asked[0].slot
        assert leases.lend(1, asked) is None
        assert leases.held[asked[0].slot].rank == 0

    def test_a_finished_fit_makes_room_for_the_next(self, leases: Leases) -> None:
        asked = proposals(3)
        for rank in (0, 1):
            leases.lend(rank, asked)
        leases.finished(asked[0].slot)
        assert lent(leases, 0, asked[1:]) == asked[2].slot
        leases.finished((9, 9, 9))
        assert set(leases.held) == {asked[1].slot, asked[2].slot}


class TestIncarnations:
    def test_a_newer_one_frees_what_the_last_one_held(self, leases: Leases) -> None:
        asked = proposals(2)
        for rank in (0, 1):
            leases.lend(rank, asked)
        leases.hello(1, 8, worker(5))
        assert (leases.incarnation, leases.requeued, leases.held) == (8, 2, {})
        assert leases.workers == {1: worker(5)}
        assert lent(leases, 1, asked) == asked[0].slot

    def test_it_frees_once_however_many_workers_say_hello(self, leases: Leases) -> None:
        asked = proposals(2)
        leases.lend(0, asked)
        leases.hello(0, 8, worker(0))
        leases.lend(0, asked)
        leases.hello(1, 8, worker(1))
        leases.hello(0, 8, worker(0))
        assert (leases.requeued, leases.fruitless) == (1, 2)
        assert [lease.rank for lease in leases.held.values()] == [0]
        assert leases.workers == {0: worker(0), 1: worker(1)}

    def test_one_that_asks_before_it_said_hello_frees_them_too(self, leases: Leases) -> None:
        asked = proposals(1)
        leases.lend(0, asked)
        assert leases.admits(8)
        assert (leases.incarnation, leases.requeued, leases.held, leases.workers) == (8, 1, {}, {})

    def test_an_older_one_is_turned_away_and_changes_nothing(self, leases: Leases) -> None:
        asked = proposals(1)
        leases.lend(0, asked)
        leases.hello(0, 6, worker(9))
        assert not leases.admits(6)
        assert leases.admits(7)
        assert (leases.incarnation, leases.requeued, leases.fruitless) == (7, 0, 1)
        assert leases.workers == {0: worker(0), 1: worker(1)}
        assert list(leases.held) == [asked[0].slot]

    def test_after_a_restart_of_the_actor_the_first_one_is_adopted(self) -> None:
        """The group that fits goes on, and is not counted as lost: nothing was."""
        fresh = Leases()
        assert fresh.admits(7)
        assert not fresh.admits(6)
        assert fresh.admits(7)
        assert (fresh.incarnation, fresh.requeued, fresh.fruitless) == (7, 0, 0)
        fresh.hello(0, 7, worker(0))
        assert (fresh.workers, fresh.fruitless) == ({0: worker(0)}, 0)


class TestFruitlessStarts:
    def test_they_are_counted_until_a_fit_is_finished(self, leases: Leases) -> None:
        for incarnation in (8, 9, 10):
            leases.hello(0, incarnation, worker(0))
            leases.hello(1, incarnation, worker(1))
        assert leases.fruitless == 4
        leases.finished((0, 1, 1))
        assert leases.fruitless == 0
        leases.hello(0, 10, worker(0))
        assert leases.fruitless == 0
        leases.hello(0, 11, worker(0))
        assert leases.fruitless == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 3), st.integers(1, 4)),
        st.tuples(st.just("tell"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("hello"), st.integers(0, 3), st.integers(1, 4)),
    ),
    max_size=40,
)


class TestAnyOrder:
    @given(STEPS)
    def test_as_a_plain_model_has_it(self, steps: list[Any]) -> None:
        """Beside a model of it: who holds what, in which incarnation, and how many fits were lost."""
        leases, asked = Leases(), proposals(4)
        told: set[Slot] = set()
        holder: dict[Slot, int] = {}
        now = lost = starts = 0
        for step, number, incarnation in steps:
            if incarnation > now:
                lost, now, holder = lost + len(holder), incarnation, {}
                starts += step == "hello"
            if step == "hello":
                leases.hello(number, incarnation, worker(number))
            elif step == "tell":
                leases.finished(asked[number].slot)
                told.add(asked[number].slot)
                holder.pop(asked[number].slot, None)
                starts = 0
            else:
                assert leases.admits(incarnation) == (incarnation == now)
                if incarnation != now:
                    continue
                left = [proposal for proposal in asked if proposal.slot not in told]
                mine = [slot for slot, rank in holder.items() if rank == number]
                free = [proposal.slot for proposal in left if proposal.slot not in holder]
                expected = next(iter(mine or free), None)
                assert lent(leases, number, left) == expected
                if expected is not None:
                    holder[expected] = number
            assert {slot: lease.rank for slot, lease in leases.held.items()} == holder
            assert len(set(holder.values())) == len(holder)
            assert (leases.incarnation, leases.requeued, leases.fruitless) == (now, lost, starts)
