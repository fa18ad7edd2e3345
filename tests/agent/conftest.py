from collections.abc import Iterator

import pytest

from ciess.devices import cpu_threads


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Agents run on one thread, as in a search."""
    with cpu_threads(1):
        yield
