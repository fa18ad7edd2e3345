"""Manners of a command: what it exits with, what it says, and where."""

import argparse
from collections.abc import Callable
from typing import Any

import pytest
import tyro

from ciess.cli.program import later, run_program
from ciess.cluster.sweep.config import SweepConfig
from ciess.config.recommender import TrainingConfig
from ciess.config.search import SearchConfig
from ciess.errors import BudgetError, CiessError, DataError, FitError, InputError, SearchError, SweepError

Command = Callable[[], None]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """run(command, arguments...): exit code, stdout and stderr of a program `tool` that knows one command."""

    def call(command: Command, *arguments: str) -> tuple[int, str, str]:
        status: Any = 0
        try:
            run_program("tool", lambda _: command, "again goes on.", arguments)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return call


def failing(error: BaseException) -> Command:
    def command() -> None:
        raise error

    return command


class TestExitCodes:
    def test_done(self, run: Run) -> None:
        assert run(lambda: print("found it")) == (0, "found it\n", "")

    @pytest.mark.parametrize("error", [InputError, DataError, BudgetError])
    def test_what_the_user_gave_is_wrong(self, run: Run, error: type[CiessError]) -> None:
        assert run(failing(error("No such file."))) == (2, "", "tool: No such file.\n")

    @pytest.mark.parametrize("error", [CiessError, FitError, SearchError, SweepError])
    def test_the_run_failed(self, run: Run, error: type[CiessError]) -> None:
        assert run(failing(error("The loss is nan."))) == (1, "", "tool: The loss is nan.\n")

    def test_interrupted(self, run: Run) -> None:
        assert run(failing(KeyboardInterrupt())) == (130, "", "\ntool: interrupted; again goes on.\n")

    def test_settings_that_are_not_valid(self, run: Run) -> None:
        assert run(lambda: SearchConfig(episodes=3, lanes=2) and None) == (
            2,
            "",
            "tool: The options are not valid. 3 episodes cannot be shared by 2 lanes; expected a multiple of the "
            "lanes, such as 4 episodes. See --help for what each option takes.\n",
        )

    def test_an_error_of_ours_is_no_manners_matter(self, run: Run) -> None:
        """What nobody raises on purpose keeps its traceback."""
        with pytest.raises(ZeroDivisionError):
            run(failing(ZeroDivisionError()))

    def test_what_was_printed_before_stays(self, run: Run) -> None:
        def command() -> None:
            print("half of it")
            raise FitError("Broke.")

        assert run(command) == (1, "half of it\n", "tool: Broke.\n")


class TestDebug:
    @pytest.mark.parametrize("error", [InputError("x"), FitError("x"), KeyboardInterrupt()])
    def test_everything_keeps_its_traceback(self, run: Run, error: BaseException) -> None:
        with pytest.raises(type(error)):
            run(failing(error), "--debug")

    def test_the_command_does_not_see_it(self) -> None:
        seen: list[list[str]] = []

        def parse(arguments: list[str]) -> Command:
            seen.append(arguments)
            return lambda: None

        run_program("tool", parse, "", ["a", "--debug", "b"])
        assert seen == [["a", "b"]]


class TestArguments:
    def test_those_of_the_process_by_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[list[str]] = []
        monkeypatch.setattr("sys.argv", ["tool", "--size", "3"])
        run_program("tool", lambda arguments: lambda: seen.append(arguments), "")
        assert seen == [["--size", "3"]]

    def test_none_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[list[str]] = []
        monkeypatch.setattr("sys.argv", ["tool", "--size", "3"])
        run_program("tool", lambda arguments: lambda: seen.append(arguments), "", [])
        assert seen == [[]]

    @pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--colour", 2)])
    def test_the_parser_has_its_own_words(self, capsys: pytest.CaptureFixture[str], argument: str, status: int) -> None:
        """Said once, although it is asked twice."""

        def parse(arguments: list[str]) -> Command:
            argparse.ArgumentParser("tool").parse_args(arguments)
            return lambda: None

        with pytest.raises(SystemExit) as caught:
            run_program("tool", parse, "", [argument])
        assert caught.value.code == status
        out, err = capsys.readouterr()
        assert (out + err).count("usage: tool [-h]") == 1
        assert bool(out) == (status == 0)

    def test_nothing_runs_while_it_is_parsed(self) -> None:
        seen: list[int] = []

        @later
        def command(size: int) -> None:
            """Keeps its name and words."""
            seen.append(size)

        ready = command(3)
        assert seen == []
        assert (command.__name__, command.__doc__) == ("command", "Keeps its name and words.")
        ready()
        assert seen == [3]


class TestWords:
    def tyro_run(self, config: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
        """What stderr says of options that tyro makes a config of; exit code 2."""

        def parse(given: list[str]) -> Command:
            tyro.cli(config, args=given)
            return lambda: None

        with pytest.raises(SystemExit) as caught:
            run_program("tool", parse, "", arguments)
        out, err = capsys.readouterr()
        assert (caught.value.code, out) == (2, "")
        return str(err)

    def test_a_value_out_of_range_is_named_as_its_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.tyro_run(SweepConfig, ["--max-size", "300"], capsys) == (
            "tool: The options are not valid. --max-size: found 300; Input should be less than or equal to 256. See "
            "--help for what each option takes.\n"
        )

    def test_a_share_is_explained(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.tyro_run(SweepConfig, ["--sparsities", "90"], capsys) == (
            "tool: The options are not valid. --sparsities: found 90.0; Input should be less than 1; it is a share, "
            "such as 0.9 for 90 %. See --help for what each option takes.\n"
        )

    def test_settings_inside_others_carry_their_section(self, run: Run) -> None:
        _, _, err = run(lambda: TrainingConfig(patience=0) and None)
        assert err.startswith("tool: The options are not valid. --training.patience: found 0; Input should be greater ")

    def test_reading_options_are_shown_as_they_are_typed(self, run: Run) -> None:
        error = DataError("Found 3 rows; try min_rating=4, pool_splits=True or another item_column.")
        assert run(failing(error))[2] == (
            "tool: Found 3 rows; try --min-rating 4, --pool-splits or another --item-column.\n"
        )

    def test_other_names_are_left_alone(self, run: Run) -> None:
        text = "Found my.min_rating and xmin_rating."
        assert run(failing(DataError(text)))[2] == f"tool: {text}\n"
