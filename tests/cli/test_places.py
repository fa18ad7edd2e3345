"""Where `ciess search` and `ciess status` are pointed at."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


class TestPlaces:
    def test_a_file_in_the_place_of_the_folder(
        self, refusal: Callable[..., str], interactions: Path, tmp_path: Path, quick_search: list[str]
    ) -> None:
        (tmp_path / "file").write_text("kept")
        for out in (tmp_path / "file", tmp_path / "file" / "run"):
            text = refusal("search", interactions, "--out", out, *quick_search)
            assert str(out).replace(str(tmp_path), "TMP") in text
        assert (tmp_path / "file").read_text() == "kept"

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can write")
    def test_a_place_where_nobody_can_write(
        self, refusal: Callable[..., str], interactions: Path, quick_search: list[str]
    ) -> None:
        text = refusal("search", interactions, "--out", "/proc/self/run", *quick_search)
        assert text.startswith("Cannot write /proc/")
        assert text.endswith("Make room or choose another folder.")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_is_read_only(
        self, refusal: Callable[..., str], interactions: Path, tmp_path: Path, quick_search: list[str]
    ) -> None:
        out = tmp_path / "run"
        out.mkdir(mode=0o500)
        assert refusal("search", interactions, "--out", out, *quick_search).startswith(
            "Cannot write TMP/run/config.yaml: "
        )
        assert refusal("search", interactions, "--out", out / "deeper", *quick_search).startswith(
            "Cannot write TMP/run/"
        )

    def test_status_of_a_folder_without_a_run(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        for out in (tmp_path, tmp_path / "nowhere"):
            assert " holds no run: a config.yaml that ciess wrote was expected." in refusal("status", out)

    def test_resume_without_a_run(
        self, refusal: Callable[..., str], interactions: Path, tmp_path: Path, quick_search: list[str]
    ) -> None:
        text = refusal("search", interactions, "--out", tmp_path / "run", *quick_search, "--resume")
        assert text.startswith("TMP/run holds no run to resume: ")

    def test_a_run_that_is_there(
        self, refusal: Callable[..., str], interactions: Path, undisturbed: Path, quick_search: list[str]
    ) -> None:
        command = ["search", interactions, "--out", undisturbed, *quick_search]
        assert refusal(*command).startswith(f"{undisturbed} already holds a run.")
        text = refusal(*command, "--resume", "--memory-weight", "0.1", "--split-seed", "3")
        assert "config.memory_weight was 0.4, now 0.1; data.split_seed was 0, now 3." in text
        assert refusal(*command, "--resume", "--episodes", "2").startswith(
            f"{undisturbed} holds a search that has reached episode 4, but --episodes is 2."
        )
