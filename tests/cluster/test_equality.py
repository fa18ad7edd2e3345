"""A search gives the same bits in this process, with one worker and with two."""

from collections.abc import Callable
from typing import Any

import pytest

from ciess.config.search import SearchConfig
from ciess.storage.storage import Storage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


class TestEqualBits:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_workers_find_what_one_process_finds(
        self,
        searching: Callable[..., Any],
        folder: Callable[..., Storage],
        config: Callable[..., SearchConfig],
        undisturbed: Storage,
        assert_same: Callable[..., None],
        workers: int,
    ) -> None:
        run = folder(config())
        searching(config(), run, workers).end()
        assert_same(run, undisturbed, config())
