"""`ciess search` and `ciess status` of a search that is done."""

from collections.abc import Callable
from pathlib import Path

import pytest

Ciess = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("no_pictures")


class TestFinished:
    def test_summary_on_stdout_and_progress_on_stderr(
        self, ciess: Ciess, interactions: Path, undisturbed: Path, quick_search: list[str], short_fits: int
    ) -> None:
        status, out, err = ciess("search", interactions, "--out", undisturbed, *quick_search, "--resume")
        assert status == 0
        assert out.startswith(f"{short_fits} masks visited.")
        assert f"\nfigures are in {undisturbed}/figures\n" in out
        assert err.splitlines()[-2] == f"Going on after {short_fits} of {short_fits} short fits."

    def test_status(self, ciess: Ciess, undisturbed: Path) -> None:
        status, out, err = ciess("status", undisturbed)
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "interactions, lightgcn: 120 users, 80 items"
        assert lines[2] == "search: 16 of 16 iterations done"
