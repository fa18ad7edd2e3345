"""The actor of a search when workers, fits or the actor itself are lost: what survives, and what ends the search."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciess.cluster.actor import News, SearchActor, Task
from ciess.cluster.leases import FRUITLESS_STARTS
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.runs import search as search_run
from ciess.runs.search import run_search
from ciess.search.proposals import Outcome, Slot
from ciess.search.recorder import search_fingerprint
from ciess.search.reference import train_reference
from ciess.search.search import Search
from ciess.search.short_fit import short_fit, starting_weights
from ciess.storage.checkpoint import load_checkpoint
from ciess.storage.storage import Storage

Make = Callable[..., SearchActor]
Small = Callable[..., SearchConfig]
LONG = 60.0
"""Seconds of patience of a question that is answered at once in a test that passes."""

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def whole(planted: Planted, trained: Path, tmp_path_factory: pytest.TempPathFactory, small_search: Small) -> Storage:
    """Run directory of the same search in this process, in one go."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_run, "search_figures", lambda *_: {})
        run_search(planted.data, small_search(), str(out), reference_from=str(trained))
    return Storage(out)


class TestLosses:
    def test_a_new_incarnation_gets_the_fits_of_the_lost_one(
        self, make: Make, planted: Planted, drive: Call, fitted: Call, asked: Call, leaves: Call
    ) -> None:
        async def test() -> None:
            actor = make()
            await actor.hello(0, 1, 10, "a")
            lost = [await asked(actor, rank) for rank in (0, 1)]
            await actor.tell(fitted(planted.data, lost[0]))
            # It waits for the next round, and hears that it is of the past.
            old = asyncio.create_task(actor.ask(0, 1, LONG))
            await asyncio.sleep(0.02)
            await actor.hello(0, 2, 11, "a")
            assert (await old).leave
            assert await leaves(actor, 0, 1, incarnation=1)
            again = await asked(actor, 0, 2)
            assert (again.slot, again.sizes.tobytes()) == (lost[1].slot, lost[1].sizes.tobytes())
            status = await actor.status()
            assert (status["requeued"], status["incarnation"], status["workers"][0]["pid"]) == (1, 2, 11)

        drive(test())

    def test_what_a_lost_worker_told_late_counts_once(
        self, make: Make, planted: Planted, drive: Call, fitted: Call, asked: Call
    ) -> None:
        async def test() -> None:
            actor = make()
            late = fitted(planted.data, await asked(actor, 0, 1))
            await actor.hello(0, 2, 11, "a")
            mine = await asked(actor, 0, 2)
            assert mine.slot == late.slot
            await actor.tell(late)
            await actor.tell(fitted(planted.data, mine))
            assert (await actor.status())["fits_done"] == 1
            assert (await asked(actor, 0, 2)).slot != mine.slot

        drive(test())

    def test_a_restarted_actor_adopts_the_workers_that_are_there(
        self, make: Make, planted: Planted, drive: Call, fitted: Call, asked: Call, leaves: Call
    ) -> None:
        async def test() -> None:
            first = make()
            await first.hello(0, 7, 10, "a")
            told, lost = [await asked(first, rank, 7) for rank in (0, 1)]
            await first.tell(fitted(planted.data, told))
            second = make()
            assert (await asked(second, 1, 7)).slot == lost.slot
            status = await second.status()
            assert (status["restored"], status["fits_done"], status["requeued"]) == (1, 1, 0)
            assert await leaves(second, 0, incarnation=6)

        drive(test())

    def test_starts_without_a_fit_end_the_search(self, make: Make, drive: Call, leaves: Call) -> None:
        async def test() -> None:
            actor = make()
            for incarnation in range(1, FRUITLESS_STARTS + 1):
                for rank in (0, 1):
                    await actor.hello(rank, incarnation, 10, "10.0.0.4")
            assert (await actor.status())["failure"] is None
            waiting = asyncio.create_task(actor.news(0, LONG))
            await asyncio.sleep(0)
            await actor.hello(0, FRUITLESS_STARTS + 1, 10, "10.0.0.4")
            assert (await waiting).failure == (
                "The workers were lost 5 times in a row before any of them finished a fit; the last ones ran on "
                "10.0.0.4. Expected fits that end. Look for a lack of memory on the nodes, and give a worker more of "
                "it or fewer neighbours by --cpus-per-worker."
            )
            assert await leaves(actor, 0, 1, incarnation=FRUITLESS_STARTS + 1)

        drive(test())

    def test_a_finished_fit_forgives_the_starts_before(
        self, make: Make, planted: Planted, drive: Call, fitted: Call, asked: Call
    ) -> None:
        async def test() -> None:
            actor = make()
            for incarnation in range(1, FRUITLESS_STARTS + 1):
                await actor.hello(0, incarnation, 10, "a")
            await actor.tell(fitted(planted.data, await asked(actor, 0, FRUITLESS_STARTS)))
            for incarnation in range(FRUITLESS_STARTS + 1, 2 * FRUITLESS_STARTS + 1):
                await actor.hello(0, incarnation, 10, "a")
            assert (await actor.status())["failure"] is None
            await actor.hello(0, 99, 10, "a")
            assert (await actor.status())["failure"] is not None

        drive(test())


class TestFailures:
    def test_what_a_worker_says_ends_the_search(self, make: Make, drive: Call, asked: Call, leaves: Call) -> None:
        async def test() -> None:
            actor = make()
            await asked(actor, 0)
            await asked(actor, 1)
            news, waiting = asyncio.create_task(actor.news(0, LONG)), asyncio.create_task(actor.ask(2, 1, LONG))
            await asyncio.sleep(0.02)
            await actor.fail("The loss is nan.")
            await actor.fail("Another one failed after it.")
            assert (await waiting).leave
            assert await leaves(actor, 0, 1)
            assert (await news).failure == "The loss is nan."
            assert (await actor.status())["failure"] == "The loss is nan."

        drive(test())

    def test_qualities_of_other_data(self, make: Make, run: Storage, drive: Call, asked: Call, leaves: Call) -> None:
        async def test() -> None:
            actor = make()
            proposal = await asked(actor, 0)
            await actor.tell(Outcome(*proposal.slot, np.full(5, 0.5, np.float32)))
            news = await actor.news(0, LONG)
            assert news.failure == (
                "The outcome of (lane, episode, iteration) (0, 1, 1) holds an array of shape (5,). Expected 120 "
                "numbers in [0, 1], one a user. Tell eval(e_u) of Eq. 8, as a fit of the proposed sizes finds it on "
                "this search's data."
            )
            assert news.fits_done == 0
            assert await leaves(actor, 0, 1)
            assert not run.exists("checkpoint")

        drive(test())

    def test_agents_that_break_down(
        self, make: Make, planted: Planted, drive: Call, fitted: Call, asked: Call, leaves: Call
    ) -> None:
        async def test() -> None:
            actor = make(agent={"critic_learning_rate": 1e30, "gradient_steps": 3, "hidden": 16, "batch_size": 64})
            for _ in range(2):
                await actor.tell(fitted(planted.data, await asked(actor, 0)))
            failure = (await actor.news(0, LONG)).failure
            assert failure is not None
            assert failure.startswith("The loss of the critics of users is ")
            assert await leaves(actor, 0, 1)

        drive(test())

    def test_an_error_of_ours_is_told_with_its_place(
        self,
        make: Make,
        planted: Planted,
        monkeypatch: pytest.MonkeyPatch,
        drive: Call,
        fitted: Call,
        asked: Call,
        leaves: Call,
    ) -> None:
        """Ray would repeat it to the worker, which would be started again, for ever."""

        def broken(self: Search, outcome: Outcome) -> bool:
            raise ZeroDivisionError("boom")

        async def test() -> None:
            actor = make()
            proposal = await asked(actor, 0)
            monkeypatch.setattr(Search, "tell", broken)
            await actor.tell(fitted(planted.data, proposal))
            failure = (await actor.news(0, LONG)).failure
            assert failure is not None
            assert failure.startswith("Traceback")
            assert failure.endswith("ZeroDivisionError: boom\n")
            assert await leaves(actor, 0, 1)

        drive(test())


class TestRestarts:
    @pytest.mark.parametrize("stops", [(), (4,), (1, 2, 3, 4, 5, 6, 7)], ids=["none", "mid-round", "always"])
    def test_it_ends_as_an_undisturbed_search(
        self,
        make: Make,
        planted: Planted,
        run: Storage,
        trained: Path,
        whole: Storage,
        stops: tuple[int, ...],
        small_search: Small,
        drive: Call,
    ) -> None:
        """Two workers, the one with the later lane first; after outcome 4 one lane of two is told."""
        config, data = small_search(), planted.data
        start = starting_weights(config, train_reference(data, config.started(), 0, Storage(trained)).weights)
        fits: list[Slot] = []

        async def test() -> None:
            actor, told = make(include_equal=True), 0
            while True:
                tasks: list[Task] = [await actor.ask(rank, 1, 0.02) for rank in (0, 1)]
                if all(task.leave for task in tasks):
                    break
                proposal = next(task.proposal for task in reversed(tasks) if task.proposal is not None)
                fits.append(proposal.slot)
                await actor.tell(short_fit(data, config, proposal, start))
                told += 1
                if told in stops:
                    before = await actor.news(0, 0)
                    assert before.mid_round or told != 4
                    actor = make(include_equal=True)
                    after = await actor.news(0, 0)
                    assert (await actor.status())["restored"] == after.fits_done == told
                    assert untimed_rows(after) == untimed_rows(before)
            await actor.close()

        drive(test())
        # Nothing that was told is fitted again.
        assert len(fits) == len(set(fits)) == 7
        assert fits[3] == (1, 2, 1)
        assert found(run, data, config) == found(whole, data, config)


def untimed_rows(news: News) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in news.rows]


def found(run: Storage, data: Interactions, config: SearchConfig) -> tuple[Any, ...]:
    """Masks, history and all that the search would go on from, without seconds."""
    state, notes = load_checkpoint(run.child("checkpoint"), search_fingerprint(data, config))
    assert state is not None
    arrays = {name: (values.dtype, values.shape, values.tobytes()) for name, values in state["arrays"].items()}
    assert len(arrays) > 20
    history, candidates = run.read_table("history.parquet"), run.read_table("candidates.parquet")
    assert (len(history), len(candidates)) == (4, 7)
    untimed = history.drop_columns([name for name in history.column_names if name.endswith("_seconds")])
    return notes, arrays, untimed.to_pylist(), candidates.to_pylist(), run.child("checkpoint").names()
