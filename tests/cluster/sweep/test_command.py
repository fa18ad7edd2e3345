"""What `python ray_jobs/sweep.py` says of input that is wrong, before it starts anything."""

import functools
import inspect
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.cluster.sweep import command
from ciess.cluster.sweep.command import EXAMPLE, main
from ciess.cluster.sweep.config import SweepConfig
from ciess.errors import InputError

SCRIPT = Path(__file__).parents[3] / "ray_jobs" / "sweep.py"

Refusal = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refusal:
    """The text of a refusal: one paragraph on stderr, nothing on stdout, exit code 2, and no cluster started."""
    monkeypatch.setattr(command.ray, "init", lambda **_: pytest.fail("a cluster was started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: Any) -> str:
        with pytest.raises(SystemExit) as end:
            main(["--storage", str(tmp_path / "runs"), *map(str, arguments)])
        out, err = capsys.readouterr()
        assert (end.value.code, out) == (2, "")
        assert err.startswith("sweep: ")
        assert err.endswith(".\n")
        assert err.count("\n") == 1
        return err.removeprefix("sweep: ").removesuffix("\n").replace(str(tmp_path), "TMP")

    return call


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ((), (0.4,)),
        (("--strategies", "kinds"), ()),
        (("--targets", 0.9), ()),
        (("--targets", 0.9, "--memory-weights", 0.2), (0.2,)),
    ],
)
def test_a_price_is_searched_by_default_where_nothing_else_is(
    given: tuple[Any, ...], weights: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(config: SweepConfig, *_: Any) -> None:
        assert config.memory_weights == weights
        raise InputError("Seen.")

    monkeypatch.setattr(command, "check_settings", check)
    with pytest.raises(SystemExit) as end:
        main(["--data", "some.csv", *map(str, given)])
    assert end.value.code == 2


class TestRefusals:
    def test_unknown_backbone_or_noise_in_a_list(self, refused: Refusal) -> None:
        assert refused("--backbones", "lightgcn", "gcn") == (
            "Invalid choice: invalid choice 'gcn' for argument '--backbones'. Expected one of ('lightgcn', 'ngcf', "
            "'ncf', 'items'). For full helptext, run ray_jobs/sweep.py --help."
        )
        assert refused("--noises", "pink").startswith(
            "Invalid choice: invalid choice 'pink' for argument '--noises'. Expected one of ('gaussian', 'ou', "
        )

    @pytest.mark.parametrize("option", ["--backbones", "--noises", "--random-walk", "--seeds", "--sparsities"])
    def test_empty_list(self, refused: Refusal, option: str) -> None:
        assert refused(option) == (
            f"The options are not valid. {option}: found (); Tuple should have at least 1 item after validation, not "
            "0. See --help for what each option takes."
        )

    def test_nothing_to_search_for(self, refused: Refusal) -> None:
        assert refused("--memory-weights", "--strategies") == (
            "The options are not valid. neither memory weights nor targets nor strategies were given; one or more of "
            "any were expected; give --memory-weights, such as 0.2 0.4, or --targets, such as 0.9, or --strategies, "
            "such as kinds. See --help for what each option takes."
        )

    @pytest.mark.parametrize(
        ("option", "value", "least"),
        [
            ("--workers-per-search", "-1", "greater than 0"),
            ("--workers-per-search", "0", "greater than 0"),
            ("--gpus-per-worker", "-0.5", "greater than or equal to 0"),
            ("--cpus-per-worker", "0", "greater than or equal to 0.1"),
        ],
    )
    def test_workers_and_resources_below_their_least(
        self, refused: Refusal, option: str, value: str, least: str
    ) -> None:
        text = refused(option, value)
        assert text.startswith(f"The options are not valid. {option}: found {value}")
        assert f"Input should be {least}" in text

    def test_more_workers_than_lanes(self, refused: Refusal) -> None:
        assert refused("--strategies", "--memory-weights", 0.4, "--workers-per-search", 3, "--lanes", 2) == (
            "Found 3 workers for the 2 lanes of each search; at most as many workers as lanes were expected, as a "
            "round has one fit a lane. Lower --workers-per-search, or raise --lanes."
        )

    @pytest.mark.parametrize("name", ["a/b", "..", "a\\b", ""])
    def test_name_that_is_a_path(self, refused: Refusal, name: str) -> None:
        assert refused("--name", name) == (
            f"--name is {name!r}, but the name of a folder below --storage was expected, without path separators. Give "
            "the path by --storage."
        )

    def test_storage_that_cannot_be_written(self, refused: Refusal, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        text = refused("--storage", tmp_path / "file" / "runs")
        assert text.startswith("--storage TMP/file/runs cannot be written: Cannot write TMP/file/runs/example/writable")
        assert text.endswith(
            "Expected a folder, or a URI such as s3://bucket/runs, to which every node of the cluster may write."
        )

    def test_no_cluster_at_the_address(self, refused: Refusal) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        assert refused("--address", address) == (
            f"No Ray cluster answers at {address} ([Errno 111] Connection refused). Expected the address that `ray "
            "start --head` prints, as HOST:PORT; one that asks for a token needs RAY_AUTH_MODE=token in the "
            "environment. Start one, or leave --address and RAY_ADDRESS out to run on this machine alone."
        )
        assert refused("--address", "head").startswith("No Ray cluster answers at head (")
        assert refused("--address", "ray://head:10001").startswith("--address is ray://head:10001, a Ray client's, but")

    def test_job_whose_results_would_be_deleted_after_it(
        self, refused: Refusal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
        assert refused("--storage", "runs") == (
            "--storage is 'runs', but a job runs in a copy of its working directory that is deleted after it. "
            "Expected an absolute path or a URI that all nodes see, such as s3://bucket/runs."
        )

    def test_settings_that_are_none(self, refused: Refusal) -> None:
        assert refused("--settings", "agent.gama=0") == (
            "The options are not valid. --agent.gama: found 0; Extra inputs are not permitted. See --help for what "
            "each option takes."
        )

    def test_unknown_method(self, refused: Refusal) -> None:
        assert refused("--methods", "equal", "pap") == (
            "Invalid choice: invalid choice 'pap' for argument '--methods'. Expected one of ('full', 'equal', 'mixed', "
            "'sized', 'pep', 'esapn', 'optembed'). For full helptext, run ray_jobs/sweep.py --help."
        )

    def test_sizes_that_the_tables_have_no_columns_for(self, refused: Refusal, tmp_path: Path) -> None:
        assert refused("--data", "planted", "--methods", "equal", "esapn", "--max-size", 16) == (
            "The sizes of ESAPN are 2, 4, 8, 16, 64, 128, but max_size is 16, and no row has more columns than that. "
            "Give esapn.sizes of 2, 4, 8, 16, or a max_size of 128 or more."
        )
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize("option", ["--esapn.sparsity", "--optembed.sparsity"])
    def test_a_sparsity_of_methods_whose_sparsity_is_an_outcome(self, refused: Refusal, option: str) -> None:
        assert f"Unrecognized options: {option}, 0.9 " in refused("--methods", "esapn", "optembed", option, 0.9)

    def test_working_directory_without_the_project(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere" / "ray_jobs").mkdir(parents=True)
        alone = shutil.copy(SCRIPT, tmp_path / "elsewhere" / "ray_jobs")
        # -S: without the packages that are installed here, this one among them.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        found = subprocess.run(
            [sys.executable, "-S", str(alone)], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr == (
            f"sweep: found no package ciess, neither in {tmp_path / 'elsewhere'} nor installed; the working directory "
            "was expected to be the project's folder. Submit with --working-dir set to it, or install ciess.\n"
        )


class TestOptions:
    def test_without_data_a_small_example_is_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found: list[tuple[Any, ...]] = []
        names = list(inspect.signature(command.sweep).parameters)

        @functools.wraps(command.sweep)
        def spy(**arguments: Any) -> None:
            found.append(tuple(arguments[name] for name in names))

        monkeypatch.setattr(command, "sweep", spy)
        main([])
        main(["--data", "ratings.csv", "--memory-weights", "0.2", "0.4"])
        assert found[0][:4] == ("planted", "runs", "example", EXAMPLE)
        assert found[1][:4] == ("ratings.csv", "runs", "sweep", SweepConfig(memory_weights=(0.2, 0.4)))
        assert (len(EXAMPLE.searches), len(EXAMPLE.sparsities)) == (2, 2)

    def test_data_that_is_not_there_names_the_node(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(command, "connect", lambda _: None)
        monkeypatch.setattr(command, "this_node", lambda: "10.0.0.7")
        with pytest.raises(SystemExit) as end:
            main(["--storage", str(tmp_path), "--data", str(tmp_path / "gone.csv")])
        assert end.value.code == 2
        text = capsys.readouterr().err
        assert text.startswith("sweep: Node 10.0.0.7, which this sweep is run from, says: ")
        assert "gone.csv does not exist" in text

    def test_reading_options_of_the_embedded_data_are_refused(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(command, "connect", lambda _: None)
        with pytest.raises(SystemExit) as end:
            main(["--storage", str(tmp_path), "--min-rating", "4"])
        assert end.value.code == 2
        assert capsys.readouterr().err == (
            "sweep: The embedded planted data takes no reading options but --split-seed; some were given. Leave them "
            "out.\n"
        )
