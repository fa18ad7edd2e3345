"""What is asked of a cluster: shares that fit beside each other on whole CPUs, and refusals of what makes no sense."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ciess.cluster.config import TRIAL_CPUS, ClusterConfig


def exact(amount: float) -> Fraction:
    """Ray counts resources in ten thousandths, so what is written is what counts."""
    return Fraction(str(amount))


class TestShares:
    def test_two_cpus_carry_two_searches_of_a_worker_or_one_of_two(self) -> None:
        """Exactly: Ray has no tolerance, and a worker that does not fit is waited for without an end."""
        to = ClusterConfig()
        worker, trial = exact(to.worker_cpus), exact(TRIAL_CPUS)
        assert to.cpus_per_worker == 1
        assert to.search_resources == {"CPU": TRIAL_CPUS}
        assert 2 * (trial + worker) <= 2
        assert trial + 2 * worker <= 2
        assert 2 * worker > 1, "two workers on one CPU would share it"

    @given(hundredths=st.integers(10, 6400), workers=st.integers(1, 64), searches=st.integers(1, 8), data=st.data())
    def test_a_search_never_takes_more_than_the_cpus_of_its_workers(
        self, hundredths: int, workers: int, searches: int, data: st.DataObject
    ) -> None:
        """So what a node has CPUs for is also what it has room for, trials included."""
        cpus = hundredths / 100
        to = ClusterConfig(cpus_per_worker=cpus, workers_per_search=workers)
        taken = searches * (exact(TRIAL_CPUS) + workers * exact(to.worker_cpus))
        whole = searches * workers * exact(cpus)
        assert taken <= whole
        # A worker is asked for no less than its CPUs but for the shares of two trials.
        assert exact(to.worker_cpus) == exact(cpus) - 2 * exact(TRIAL_CPUS) > 0

    @pytest.mark.parametrize("cpus", [0.1, 0.3, 0.7, 1.1, 2.3])
    def test_no_digits_of_binary_fractions(self, cpus: float) -> None:
        assert len(str(ClusterConfig(cpus_per_worker=cpus).worker_cpus)) <= 4

    def test_gpus_are_asked_for_only_where_there_are_some(self) -> None:
        without, shared = ClusterConfig(), ClusterConfig(cpus_per_worker=4, gpus_per_worker=0.25)
        assert (without.worker_resources, without.training_resources) == ({"CPU": 0.98}, {"CPU": 1.0})
        assert shared.worker_resources == {"CPU": 3.98, "GPU": 0.25}
        assert shared.training_resources == {"CPU": 4.0, "GPU": 0.25}
        assert shared.search_resources == {"CPU": 0.01}

    def test_searches_alone_go_to_coordinators(self) -> None:
        to = ClusterConfig(coordinator_resource="on_demand")
        assert to.search_resources == {"CPU": 0.01, "on_demand": 0.01}
        assert "on_demand" not in to.worker_resources | to.training_resources


class TestRefusals:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("workers_per_search", 0),
            ("workers_per_search", -1),
            ("workers_per_search", 1.5),
            ("cpus_per_worker", 0),
            ("cpus_per_worker", 0.02),
            ("gpus_per_worker", -0.25),
            ("read_data_on", "head"),
            ("max_concurrent_trials", 0),
            ("max_failures", -1),
            ("start_timeout_minutes", 0),
            ("workers", 2),
        ],
    )
    def test_what_makes_no_sense(self, field: str, value: Any) -> None:
        with pytest.raises(ValidationError) as caught:
            ClusterConfig(**{field: value})
        assert [error["loc"] for error in caught.value.errors()] == [(field,)]

    def test_the_least_of_everything(self) -> None:
        to = ClusterConfig(cpus_per_worker=0.1, max_failures=0, max_concurrent_trials=1)
        assert to.worker_cpus == 0.08
