import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.cli import main
from ciess.errors import DataError, FitError
from ciess.runs import fit as run_module

BROKEN = ["--training.learning-rate", "1e30", "--seeds", "7"]
Ciess = Callable[..., tuple[int, str, str]]


class TestFit:
    def test_summary_on_stdout_and_progress_on_stderr(
        self, ciess: Ciess, ratings: Path, finished: Path, tmp_path: Path, columns: list[str], quick_fit: list[str]
    ) -> None:
        status, out, err = ciess("fit", ratings, "--out", tmp_path / "run", *columns, *quick_fit)
        assert status == 0
        assert out.splitlines()[0] == "ratings, lightgcn"
        assert err.splitlines()[0] == "[1/1] lightgcn equal-c80-s0"
        for file in ("results.parquet", "tables/equal-c80-s0/weights.safetensors", "tables/equal-c80-s0/card.json"):
            assert (tmp_path / "run" / file).exists()
        first, second = (folder / "tables" / "equal-c80-s0" for folder in (finished, tmp_path / "run"))
        for file in ("weights.safetensors", "ids.parquet", "edges.parquet"):
            assert (first / file).read_bytes() == (second / file).read_bytes()

    def test_a_log_has_plain_lines(
        self, ratings: Path, tmp_path: Path, columns: list[str], quick_fit: list[str]
    ) -> None:
        """A process whose stderr is no terminal: no bars, no carriage returns, no warnings."""
        settings = [*quick_fit, "--training.max-epochs", "10"]
        code = "import sys; from ciess.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "fit", str(ratings), "--out", str(tmp_path / "run"), *columns, *settings],
            capture_output=True,
            check=False,
        )
        err = done.stderr.decode()
        assert done.returncode == 0, err
        assert "\r" not in err
        assert "\x1b" not in err
        lines = err.splitlines()
        assert lines[0] == "[1/1] lightgcn equal-c80-s0"
        assert [line.split()[:3] for line in lines[1:4]] == [["choose", "epoch", str(epoch)] for epoch in (0, 5, 10)]
        assert lines[1].startswith("  choose epoch 0 start valid 0.")
        assert all(line.startswith(("  choose epoch ", "  refit epoch ")) for line in lines[1:])

    def test_a_directory_that_holds_a_run(
        self, refusal: Callable[..., str], ratings: Path, finished: Path, columns: list[str], quick_fit: list[str]
    ) -> None:
        before = (finished / "results.parquet").read_bytes()
        assert refusal("fit", ratings, "--out", finished, *columns, *quick_fit) == (
            f"{finished} already holds a run. An empty or new folder was expected. Choose another --out, go on with "
            "that run by --resume, or delete it by --overwrite."
        )
        assert (finished / "results.parquet").read_bytes() == before

    def test_overwrite_and_resume(
        self, ciess: Ciess, ratings: Path, finished: Path, tmp_path: Path, columns: list[str], quick_fit: list[str]
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(finished, out)
        status, _, err = ciess("fit", ratings, "--out", out, *columns, *quick_fit, "--resume")
        assert (status, err) == (0, "[1/1] equal-c80-s0 is done already\n")
        status, _, err = ciess("fit", ratings, "--out", out, *columns, *quick_fit, "--overwrite")
        assert (status, err.splitlines()[0]) == (0, "[1/1] lightgcn equal-c80-s0")

    def test_resume_without_a_run(
        self, refusal: Callable[..., str], ratings: Path, tmp_path: Path, columns: list[str], quick_fit: list[str]
    ) -> None:
        assert refusal("fit", ratings, "--out", tmp_path / "run", *columns, *quick_fit, "--resume") == (
            "TMP/run holds no run to resume: there is no config.yaml of one. Check --out, or leave --resume out to "
            "start one."
        )

    def test_a_folder_of_something_else(
        self,
        refusal: Callable[..., str],
        ciess: Ciess,
        ratings: Path,
        tmp_path: Path,
        write: Callable[..., Path],
        columns: list[str],
        quick_fit: list[str],
    ) -> None:
        write(tmp_path / "thesis.tex", "years of work")
        assert refusal("fit", ratings, "--out", tmp_path, *columns, *quick_fit, "--overwrite") == (
            "TMP holds files that are not a run of ciess: thesis.tex. An empty or new folder was expected. Choose "
            "another --out."
        )
        assert (tmp_path / "thesis.tex").read_text() == "years of work"

    def test_training_that_breaks_down_is_exit_code_1(
        self, ciess: Ciess, ratings: Path, tmp_path: Path, columns: list[str], quick_fit: list[str]
    ) -> None:
        status, out, err = ciess("fit", ratings, "--out", tmp_path / "run", *columns, *quick_fit, *BROKEN)
        assert (status, out) == (1, "")
        assert err.splitlines()[-1].startswith("ciess: The loss is ")
        for part in ("in epoch 1 ", "learning rate 1e+30 ", "seed 7;"):
            assert part in err
        assert "Traceback" not in err

    def test_debug_shows_where_it_happened(
        self, ratings: Path, tmp_path: Path, columns: list[str], quick_fit: list[str]
    ) -> None:
        with pytest.raises(DataError):
            main(["data", str(tmp_path / "missing"), "--debug"])
        with pytest.raises(FitError):
            main(["--debug", "fit", str(ratings), "--out", str(tmp_path / "run"), *columns, *quick_fit, *BROKEN])


def test_an_interrupt_says_how_to_go_on(ciess: Ciess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "fit_tables", interrupted)
    status, _, err = ciess("fit", "planted", "--out", tmp_path / "run")
    assert (status, err.strip()) == (
        130,
        "ciess: interrupted; the same command goes on from here with --resume (`ciess retrain` without it).",
    )
