"""A search whose worker, actor or driver is lost ends with what an undisturbed one finds; one that fails says why."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from ciess.config.search import SearchConfig
from ciess.errors import CiessError, FitError
from ciess.storage.storage import Storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

Searching = Callable[..., Any]
Folder = Callable[..., Storage]
Config = Callable[..., SearchConfig]
Same = Callable[..., None]


class TestLostProcesses:
    def test_fit_of_a_killed_worker_is_done_again(
        self, searching: Searching, folder: Folder, config: Config, undisturbed: Storage, assert_same: Same
    ) -> None:
        run = folder(config())
        search = searching(config(), run)
        _, pid, before = search.stop_a_worker_at_a_fit()
        assert len(before["leases"]) == 1
        os.kill(pid, signal.SIGKILL)
        after = search.until_status(lambda status: status["requeued"], "the lost fit was free again")
        assert after["requeued"] == 1
        assert after["incarnation"] > before["incarnation"]
        assert pid not in {worker["pid"] for worker in after["workers"].values()}
        search.end()
        assert_same(run, undisturbed, config())

    def test_killed_actor_comes_back_in_the_middle_of_a_round(
        self, searching: Searching, folder: Folder, config: Config, undisturbed: Storage, assert_same: Same
    ) -> None:
        run = folder(config())
        search = searching(config(), run, workers=2)
        # Halted at a fit, one lane cannot be told, so the other one's outcome leaves the round half told.
        search.stop_a_worker_at_a_fit()
        before = search.until_status(
            lambda status: status["mid_round"] and len(status["leases"]) == 1, "one lane of two was told"
        )
        os.kill(before["pid"], signal.SIGKILL)
        after = search.until_status(lambda status: status["pid"] != before["pid"], "the actor was there again")
        search.let_go()
        assert after["restored"] == before["fits_done"] > 0
        search.end()
        assert_same(run, undisturbed, config())


class TestGoingOn:
    def test_interrupted_search_goes_on_from_its_checkpoint(
        self,
        local_ray: Any,
        searching: Searching,
        folder: Folder,
        config: Config,
        undisturbed: Storage,
        assert_same: Same,
    ) -> None:
        run = folder(config())
        first = searching(config(), run)
        first.until_status(lambda status: status["fits_done"] >= 3, "three fits were told")
        local_ray.kill(first.actor(), no_restart=True)
        with pytest.raises(CiessError, match="could not be kept"):
            first.end()
        second = searching(config(), run)
        assert second.status()["restored"] >= 3
        second.end()
        assert_same(run, undisturbed, config())

    def test_workers_of_a_lost_actor_give_their_resources_back(
        self, local_ray: Any, searching: Searching, folder: Folder, config: Config, until: Callable[..., Any]
    ) -> None:
        search = searching(config(), folder(config()))
        search.until_status(lambda status: status["workers"], "a worker was ready")
        local_ray.kill(search.actor(), no_restart=True)
        with pytest.raises(CiessError, match="could not be kept"):
            search.end()
        until(lambda: local_ray.available_resources().get("CPU") == 2, "both CPUs were free", 60)


class TestFailingFits:
    def test_fit_that_breaks_down_ends_the_search_with_its_own_words(
        self, local_ray: Any, searching: Searching, folder: Folder, config: Config, until: Callable[..., Any]
    ) -> None:
        # The reference trains at another learning rate, and is fine.
        diverging = config(short_fit={"learning_rate": 1e30, "start": "fresh"})
        search = searching(diverging, folder(diverging))
        with pytest.raises(FitError, match=r"^The loss is (nan|inf) in epoch 1 at learning rate 1e\+30"):
            search.end()
        until(lambda: local_ray.available_resources().get("CPU") == 2, "both CPUs were free", 60)
