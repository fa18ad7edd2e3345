"""The actor of a search, driven here by tasks of one event loop instead of Ray's: who gets what, and when."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.cluster.actor import SearchActor
from ciess.data.planted import Planted
from ciess.search.proposals import Outcome
from ciess.search.search import Search
from ciess.storage.storage import Storage

Make = Callable[..., SearchActor]
LONG = 60.0
"""Seconds of patience of a question that is answered at once in a test that passes."""

Call = Callable[..., Any]


async def waits(actor: SearchActor, rank: int, incarnation: int = 1) -> bool:
    """Whether there is nothing for this worker, for now."""
    task = await actor.ask(rank, incarnation, 0.02)
    return task.proposal is None and not task.leave


def contents(run: Storage) -> dict[str, tuple[bytes, int]]:
    paths = [path for path in Path(run.root).rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


class TestLockStep:
    def test_the_next_round_starts_when_the_last_fit_of_this_one_is_told(
        self, make: Make, planted: Planted, drive: Call, fitted: Call, asked: Call
    ) -> None:
        async def test() -> None:
            actor = make()
            first, second = [await asked(actor, rank) for rank in (0, 1)]
            assert [first.slot, second.slot] == [(0, 1, 1), (1, 2, 1)]
            await actor.tell(fitted(planted.data, first))
            assert await waits(actor, 0)
            waiting = asyncio.create_task(actor.ask(0, 1, LONG))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            await actor.tell(fitted(planted.data, second))
            task = await waiting
            assert task.proposal is not None
            third = await asked(actor, 1)
            assert [task.proposal.slot, third.slot] == [(0, 1, 2), (1, 2, 2)]

        drive(test())

    def test_more_workers_than_lanes_wait(self, make: Make, drive: Call, asked: Call) -> None:
        async def test() -> None:
            actor = make()
            places = [(await asked(actor, rank)).slot for rank in (0, 1)]
            assert len(set(places)) == 2
            assert await waits(actor, 2)
            # Asking again takes nothing from the others.
            assert [(await asked(actor, rank)).slot for rank in (0, 1)] == places

        drive(test())

    def test_all_leave_when_the_search_is_done(
        self, make: Make, planted: Planted, drive: Call, fitted: Call, asked: Call, leaves: Call
    ) -> None:
        async def test() -> None:
            actor = make()
            for _ in range(3):
                await actor.tell(fitted(planted.data, await asked(actor, 0)))
            last = await asked(actor, 0)
            waiting = asyncio.create_task(actor.ask(1, 1, LONG))
            await asyncio.sleep(0.02)
            await actor.tell(fitted(planted.data, last))
            assert (await waiting).leave
            assert await leaves(actor, 0, 1)
            news = await actor.news(0, LONG)
            assert (news.done, news.failure, news.fits_done, news.fits, news.mid_round) == (True, None, 4, 4, False)

        drive(test())

    def test_close_sends_everyone_home(self, make: Make, run: Storage, drive: Call, asked: Call, leaves: Call) -> None:
        async def test() -> None:
            actor = make()
            await asked(actor, 0)
            await asked(actor, 1)
            waiting = asyncio.create_task(actor.ask(2, 1, LONG))
            await asyncio.sleep(0.02)
            for _ in range(2):
                await actor.close()
            assert (await waiting).leave
            assert await leaves(actor, 0, 1)
            assert run.exists("candidates.parquet")

        drive(test())


class TestNews:
    def test_rows_come_with_completed_rounds(
        self, make: Make, planted: Planted, run: Storage, drive: Call, fitted: Call, asked: Call
    ) -> None:
        async def test() -> None:
            actor = make()
            waiting = asyncio.create_task(actor.news(0, LONG))
            await actor.tell(fitted(planted.data, await asked(actor, 0)))
            half = await actor.news(0, 0.02)
            assert (half.rows, half.fits_done, half.mid_round, half.done) == ([], 1, True, False)
            assert not waiting.done()
            await actor.tell(fitted(planted.data, await asked(actor, 0)))
            news = await waiting
            assert [(row["lane"], row["iteration"]) for row in news.rows] == [(0, 1), (1, 1)]
            assert news.rows == run.read_table("history.parquet").to_pylist()
            for _ in range(2):
                await actor.tell(fitted(planted.data, await asked(actor, 0)))
            places = [(row["lane"], row["iteration"]) for row in (await actor.news(2, LONG)).rows]
            assert places == [(0, 2), (1, 2)]

        drive(test())

    def test_status_says_who_fits_what(
        self, make: Make, planted: Planted, drive: Call, fitted: Call, asked: Call
    ) -> None:
        async def test() -> None:
            actor = make()
            assert (await actor.status())["first_ask"] == 0
            for rank in (0, 1):
                await actor.hello(rank, 5, 100 + rank, f"10.0.0.{rank}")
            first = await asked(actor, 1, 5)
            await actor.tell(fitted(planted.data, first))
            second = await asked(actor, 0, 5)
            status = await actor.status()
            assert status["workers"] == {rank: {"pid": 100 + rank, "node": f"10.0.0.{rank}"} for rank in (0, 1)}
            assert {slot: lease["rank"] for slot, lease in status["leases"].items()} == {second.slot: 0}
            names = ("incarnation", "requeued", "fits_done", "fits", "mid_round", "restored", "notes", "failure")
            assert [status[name] for name in names] == [5, 0, 1, 4, True, 0, [], None]
            assert 0 < status["first_ask"] <= status["last_tell"]

        drive(test())


class TestTwice:
    def test_telling_again_changes_nothing(
        self, make: Make, planted: Planted, run: Storage, drive: Call, fitted: Call, asked: Call
    ) -> None:
        """In the same round and after it, whatever the second outcome says."""

        async def test() -> None:
            actor = make()
            first = fitted(planted.data, await asked(actor, 0))
            await actor.tell(first)
            second = await asked(actor, 0)
            for known in (first, dataclasses.replace(first, quality=first.quality[:3] + 7)):
                before = contents(run), await actor.news(0, 0)
                await actor.tell(known)
                assert (contents(run), await actor.news(0, 0)) == before
            assert (await asked(actor, 0)).slot == second.slot
            await actor.tell(fitted(planted.data, second))
            before = contents(run), await actor.news(0, 0)
            await actor.tell(first)
            assert (contents(run), await actor.news(0, 0)) == before
            assert before[1].fits_done == 2

        drive(test())

    def test_a_question_asked_again_has_the_same_answer(self, make: Make, drive: Call, asked: Call) -> None:
        async def test() -> None:
            actor = make()
            mine = await asked(actor, 0)
            again = await asked(actor, 0)
            assert (again.slot, again.sizes.tobytes()) == (mine.slot, mine.sizes.tobytes())
            assert len((await actor.status())["leases"]) == 1

        drive(test())


class TestUpdates:
    def test_questions_are_answered_while_the_agents_learn(
        self, make: Make, planted: Planted, monkeypatch: pytest.MonkeyPatch, drive: Call, fitted: Call, asked: Call
    ) -> None:
        begun, go_on = threading.Event(), threading.Event()
        tell = Search.tell

        def slow(self: Search, outcome: Outcome) -> bool:
            begun.set()
            assert go_on.wait(LONG)
            return tell(self, outcome)

        monkeypatch.setattr(Search, "tell", slow)

        async def test() -> None:
            actor = make()
            try:
                first = await asked(actor, 0)
                telling = asyncio.create_task(actor.tell(fitted(planted.data, first)))
                assert await asyncio.to_thread(begun.wait, LONG)
                status = await asyncio.wait_for(actor.status(), LONG / 4)
                assert (status["fits_done"], list(status["leases"])) == (0, [first.slot])
                # What is being told is nobody else's to fit.
                second = await asyncio.wait_for(asked(actor, 1), LONG / 4)
                assert second.slot == (1, 2, 1)
                assert await asyncio.wait_for(waits(actor, 2), LONG / 4)
                await asyncio.wait_for(actor.hello(2, 1, 10, "a"), LONG / 4)
                assert (await asyncio.wait_for(actor.news(0, 0), LONG / 4)).fits_done == 0
                assert not telling.done()
            finally:
                go_on.set()
            await telling
            assert (await actor.status())["fits_done"] == 1

        drive(test())

    def test_outcomes_told_at_once_are_taken_one_by_one(
        self, make: Make, planted: Planted, monkeypatch: pytest.MonkeyPatch, drive: Call, fitted: Call, asked: Call
    ) -> None:
        inside = most = 0
        tell = Search.tell

        def counted(self: Search, outcome: Outcome) -> bool:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            try:
                return tell(self, outcome)
            finally:
                inside -= 1

        monkeypatch.setattr(Search, "tell", counted)

        async def test() -> None:
            actor = make()
            outcomes = [fitted(planted.data, await asked(actor, rank)) for rank in (0, 1)]
            await asyncio.gather(*(actor.tell(outcome) for outcome in [*outcomes, *outcomes]))
            news = await actor.news(0, LONG)
            assert (most, news.fits_done, len(news.rows)) == (1, 2, 2)
            assert (await asked(actor, 0)).slot == (0, 1, 2)

        drive(test())
