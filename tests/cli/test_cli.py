"""The command line as a user meets it: what it prints, where, and with which exit code."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from ciess.cli import main
from ciess.config import recommender as config_module
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions, planted, read
from ciess.data.planted import Planted
from ciess.errors import DataError, FitError
from ciess.runs import fit as run_module
from ciess.tables.card import FORMAT, content_sha256
from ciess.tables.table import load

COMMANDS = ["data", "fit", "search", "retrain", "status", "figures", "recommend", "bench", "doctor"]
QUICK = [
    *("--max-size", "16", "--sparsity", "0.8", "--threads", "1", "--device", "cpu"),
    *("--training.batch-size", "500", "--training.max-epochs", "2", "--training.evaluate-every", "1"),
]
BROKEN = ["--training.learning-rate", "1e30", "--seeds", "7"]

Ciess = Callable[..., tuple[int, str, str]]


def boxed(text: str) -> str:
    """The text in a box that tyro drew, in one line."""
    return " ".join(text.replace("│", " ").split())


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(scope="module")
def ratings(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted data as a CSV file whose users are names and whose items are numbers."""
    data = planted.data
    pairs = data.train + data.valid + data.test
    table = {
        "who": [f"u{user:03d}" for user in pairs.users.tolist()],
        "what": data.item_ids.take(pa.array(pairs.items)).to_pylist(),
    }
    path = tmp_path_factory.mktemp("data") / "ratings.csv"
    csv.write_csv(pa.table(table), path)
    return path


COLUMNS = ["--user-column", "who", "--item-column", "what"]


@pytest.fixture(scope="module")
def finished(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with one table."""
    out = tmp_path_factory.mktemp("runs") / "es"
    main(["fit", str(ratings), "--out", str(out), *COLUMNS, *QUICK])
    return out


@pytest.fixture
def table(finished: Path, tmp_path: Path) -> Path:
    """A saved table that may be damaged."""
    shutil.copytree(finished / "tables" / "equal-c80-s0", tmp_path / "table")
    return tmp_path / "table"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `ciess fit` asks for, without any training."""
    calls: list[dict[str, Any]] = []

    def spy(data: Interactions, config: FitConfig, options: DataConfig, out: str, resume: bool, overwrite: bool) -> str:
        calls.append(
            {"data": data, "config": config, "options": options, "out": out, "resume": resume, "overwrite": overwrite}
        )
        return "done"

    monkeypatch.setattr(run_module, "fit_tables", spy)
    return calls


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_help(self, ciess: Ciess, command: str) -> None:
        status, out, err = ciess(command, "--help")
        assert (status, err) == (0, "")
        assert out.startswith(f"usage: ciess {command} ")
        assert command in ciess("--help")[1]

    def test_every_setting_can_be_given(self, ciess: Ciess) -> None:
        out = ciess("fit", "--help")[1]
        for name in [*FitConfig.model_fields, *DataConfig.model_fields]:
            if name not in ("model", "training"):
                assert f"--{name.replace('_', '-')}" in out
        for name in config_module.TrainingConfig.model_fields:
            assert f"--training.{name.replace('_', '-')}" in out

    @pytest.mark.parametrize("backbone", config_module.MODEL_CONFIGS)
    def test_help_shows_the_settings_of_the_backbone(self, ciess: Ciess, backbone: str) -> None:
        out = ciess("fit", "--backbone", backbone, "--help")[1]
        for other, settings in config_module.MODEL_CONFIGS.items():
            for name in settings.model_fields:
                mine = name in config_module.MODEL_CONFIGS[backbone].model_fields
                if mine or other != backbone:
                    assert (f"--model.{name.replace('_', '-')} " in out.replace(",", " ")) == mine

    def test_the_command_itself(self) -> None:
        """As installed: a process of its own, with nothing on stderr."""
        code = "import sys; sys.argv[0] = 'ciess'; from ciess.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: ciess ")


class TestOptions:
    @pytest.mark.parametrize("arguments", [[], ["fit"], ["fit", "planted"], ["recommend"], ["serve"]])
    def test_what_is_missing_or_unknown_is_asked_for(self, ciess: Ciess, arguments: list[str]) -> None:
        status, out, err = ciess(*arguments)
        assert (status, out) == (2, "")
        assert "Traceback" not in err
        assert "--help" in err

    def test_a_mistyped_option_gets_a_suggestion(self, ciess: Ciess, tmp_path: Path) -> None:
        status, out, err = ciess("fit", "planted", "--out", tmp_path / "run", "--sparsty", "0.9")
        assert (status, out) == (2, "")
        text = boxed(err)
        assert "Unrecognized options: --sparsty" in text
        assert "Perhaps you meant: --sparsity" in text
        assert "Traceback" not in err
        assert not (tmp_path / "run").exists()

    def test_a_sparsity_for_methods_whose_sparsity_is_an_outcome(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        arguments = ("fit", "planted", "--out", tmp_path / "run", "--method", "esapn", "--sparsity", "0.9")
        assert refusal(*arguments) == (
            "The options are not valid. found --sparsity 0.9 for esapn, whose sparsity is an outcome and cannot be "
            "asked for; --sparsity gives the budgets of equal, mixed and pep; leave it out, or name one of these "
            "methods, too, to compare with tables of that sparsity. See --help for what each option takes."
        )
        assert not (tmp_path / "run").exists()

    def test_without_a_sparsity_such_methods_need_none(self, ciess: Ciess, tmp_path: Path) -> None:
        """The default of --sparsity depends on the methods; here the sizes are what is refused."""
        status, _, err = ciess("fit", "planted", "--out", tmp_path / "run", "--method", "esapn", "--max-size", 16)
        assert (status, err) == (
            2,
            "ciess: The sizes of ESAPN are 2, 4, 8, 16, 64, 128, but max_size is 16, and no row has more columns than "
            "that. Give esapn.sizes of 2, 4, 8, 16, or a max_size of 128 or more.\n",
        )
        assert not (tmp_path / "run").exists()

    def test_thresholds_that_prune_before_any_training(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        arguments = ("fit", "planted", "--out", tmp_path / "run", "--method", "pep", "--pep.initial-threshold", 5)
        text = refusal(*arguments)
        assert text.startswith("Before any training the thresholds keep 0 of ")
        assert text.endswith("so that training decides. Lower pep.initial_threshold (5).")
        assert not (tmp_path / "run").exists()

    def test_sizes_that_do_not_ascend(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        text = refusal("fit", "planted", "--out", tmp_path / "run", "--method", "esapn", "--esapn.sizes", 4, 2)
        assert text.startswith("The options are not valid. --esapn.sizes: found ")
        assert "sizes must ascend without repeats, found 4, 2" in text

    @pytest.mark.parametrize(
        ("option", "expected"),
        [
            ("--backbone", "('lightgcn', 'ngcf', 'ncf')"),
            ("--method", "('full', 'equal', 'mixed', 'pep', 'esapn', 'optembed')"),
        ],
    )
    def test_an_unknown_choice(self, ciess: Ciess, tmp_path: Path, option: str, expected: str) -> None:
        status, out, err = ciess("fit", "planted", "--out", tmp_path / "run", option, "mf")
        assert (status, out) == (2, "")
        assert f"invalid choice 'mf' for argument '{option}'. Expected one of {expected}." in boxed(err)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("given", "text"),
        [
            (
                ["0.9", "1.5"],
                "--sparsity: found 1.5; Input should be less than 1; it is a share, such as 0.9 for 90 %.",
            ),
            (["1"], "--sparsity: found 1.0; Input should be less than 1; it is a share, such as 0.9 for 90 %."),
            (["0"], "--sparsity: found 0.0; Input should be greater than 0."),
            (["-0.5"], "--sparsity: found -0.5; Input should be greater than 0."),
            (["nan"], "--sparsity: found nan; Input should be less than 1; it is a share, such as 0.9 for 90 %."),
        ],
    )
    def test_a_sparsity_outside_0_and_1(
        self, refusal: Callable[..., str], tmp_path: Path, given: list[str], text: str
    ) -> None:
        assert refusal("fit", "planted", "--out", tmp_path / "run", "--sparsity", *given) == (
            f"The options are not valid. {text} See --help for what each option takes."
        )
        assert not (tmp_path / "run").exists()

    def test_an_unreachable_sparsity(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        text = refusal("fit", "planted", "--out", tmp_path / "run", "--max-size", "16", "--sparsity", "0.99")
        n = planted().data.n
        assert text == (
            f"A sparsity of 0.99 leaves {n * 16 // 100:,} parameters for {n:,} rows, but every row keeps at least 1 "
            "of its 16 dimensions. Choose a sparsity of at most 0.9375."
        )
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("option", "value"), [("--training.learning-rate", "-1"), ("--model.layers", "0"), ("--max-size", "0")]
    )
    def test_a_setting_out_of_its_range(self, ciess: Ciess, tmp_path: Path, option: str, value: str) -> None:
        status, out, err = ciess("fit", "planted", "--out", tmp_path / "run", option, value)
        assert (status, out) == (2, "")
        assert option.rpartition(".")[2].lstrip("-").replace("-", "_") in err.replace("-", "_")
        assert "Input should be greater than" in boxed(err)
        assert "Traceback" not in err

    def test_rounds_of_a_bench(self, refusal: Callable[..., str]) -> None:
        assert refusal("bench", "planted", "--rounds", "0").startswith("rounds is 0, but")


class TestDefaults:
    @pytest.mark.parametrize("backbone", config_module.TUNED)
    @pytest.mark.parametrize("form", ["{} {}", "{}={}"])
    def test_they_follow_the_backbone(
        self, ciess: Ciess, asked: list[dict[str, Any]], backbone: str, form: str
    ) -> None:
        option = form.format("--backbone", backbone).split(" ")
        assert ciess("fit", "planted", "--out", "x", *option) == (0, "done\n", "")
        assert asked[0]["config"] == FitConfig(backbone=backbone)  # type: ignore[arg-type]
        for name, value in config_module.TUNED[backbone].items():
            assert getattr(asked[0]["config"].training, name) == value

    def test_tuned_ones_are_used_where_nothing_is_given(
        self, ciess: Ciess, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(config_module.TUNED, "ngcf", {"learning_rate": 0.125, "decay": 0.5})
        ciess("fit", "planted", "--out", "x", "--training.decay", "0.25", "--backbone", "ngcf", "--model.width", "8")
        training = asked[0]["config"].training
        assert (training.learning_rate, training.decay) == (0.125, 0.25)
        assert asked[0]["config"].model == config_module.NGCFConfig(width=8)
        assert "(default: 0.125)" in boxed(ciess("bench", "--help", "--backbone", "ngcf")[1])
        assert "(default: 0.125)" not in boxed(ciess("bench", "--help")[1])

    def test_without_a_backbone_it_is_lightgcn(self, ciess: Ciess, asked: list[dict[str, Any]]) -> None:
        ciess("fit", "planted", "--out", "x")
        assert asked[0]["config"] == FitConfig()
        assert asked[0]["config"].model == config_module.LightGCNConfig()
        assert asked[0]["options"] == DataConfig()
        assert (asked[0]["resume"], asked[0]["overwrite"]) == (False, False)

    def test_everything_given_arrives(self, ciess: Ciess, asked: list[dict[str, Any]]) -> None:
        arguments = (
            "--method full mixed --sparsity 0.5 0.75 --seeds 3 4 --no-refit --resume --split-seed 9 --backbone ncf"
        )
        ciess("fit", "planted", "--out", "x", *arguments.split(), "--model.hidden", "8", "4")
        found = asked[0]["config"]
        assert (found.method, found.sparsity, found.seeds) == (("full", "mixed"), (0.5, 0.75), (3, 4))
        assert (found.refit, found.model.hidden) == (False, (8, 4))
        assert (asked[0]["resume"], asked[0]["overwrite"], asked[0]["out"]) == (True, False, "x")
        assert asked[0]["data"].split_seed == 9
        ciess("fit", "planted", "--out", "x", "--overwrite")
        assert (asked[1]["resume"], asked[1]["overwrite"]) == (False, True)


class TestData:
    def test_counts(self, ciess: Ciess, ratings: Path, planted: Planted) -> None:
        status, out, err = ciess("data", ratings, *COLUMNS)
        assert (status, err) == (0, "")
        counts = planted.data.counts()
        for name in ("users", "items", "interactions"):
            assert f"{counts[name]:,}" in out

    def test_embedded_planted_data(self, ciess: Ciess) -> None:
        counts = planted().data.counts()
        assert f"{counts['interactions']:,}" in ciess("data", "planted")[1]

    def test_embedded_data_takes_no_reading_options(self, refusal: Callable[..., str]) -> None:
        assert refusal("data", "planted", "--min-rating", "3") == (
            "The embedded planted data takes no reading options but --split-seed; some were given. Leave them out."
        )

    def test_a_file_of_that_name_goes_first(
        self, ciess: Ciess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write(tmp_path / "planted", "user_id,item_id\n" + "".join(f"1,{item}\n" for item in range(8)))
        status, out, _ = ciess("data", "planted", "--format", "csv")
        assert status == 0
        assert "interactions" in out
        assert f"{planted().data.n_users:,}" not in out

    @pytest.mark.parametrize("command", [["data"], ["fit", "--out", "RUN"], ["bench"]])
    @pytest.mark.parametrize(
        ("name", "content", "options", "text"),
        [
            (
                "missing.csv",
                None,
                [],
                "PATH does not exist. Expected a file or folder with interactions, such as ml-1m/ratings.dat. Check "
                "the path; relative paths start at the current directory.",
            ),
            (
                "u.data",
                "",
                [],
                "PATH: u.data is empty. Expected one interaction or more. Check that it was downloaded or written "
                "completely.",
            ),
            (
                "ratings.dat",
                "1::2::3::4\n1::3:3::4\n",
                [],
                "PATH, line 2 is malformed: '1::3:3::4'. Expected 4 fields (user, item, rating, timestamp) apart by "
                "'::', in UTF-8, with whole numbers as MovieLens ids and numbers as ratings. Correct this line, or "
                "tell the reader another format.",
            ),
            (
                "x.xlsx",
                "hello\n",
                [],
                "PATH: the format is not recognised; the first line is 'hello'. Expected one of: movielens-dat, "
                "movielens-tab, movielens-csv, recbole, lightgcn, csv, tsv, parquet. Pass one as format; for a table, "
                "name its columns with --user-column and --item-column.",
            ),
            (
                "x.csv",
                "user_id,item_id\n1,2\n",
                ["--format", "excel"],
                "'excel' is no known format. Expected one of: auto, movielens-dat, movielens-tab, movielens-csv, "
                "recbole, lightgcn, csv, tsv, parquet. Pass one as format.",
            ),
            (
                "x.csv",
                "user,item\n1,2\n",
                [],
                "PATH has no column 'user_id'. The columns found are: user, item. Expected one column each of "
                "user_id, item_id. Name them with --user-column, --item-column and --rating-column.",
            ),
            (
                "x.csv",
                "user_id,item_id\n1,2\n1,3\n1,4\n",
                ["--item-column", "film"],
                "PATH has no column 'film'. The columns found are: user_id, item_id. Expected one column each of "
                "user_id, film. Name them with --user-column, --item-column and --rating-column.",
            ),
            (
                "x.csv",
                "user_id,item_id\n1,2\n1,3\n1,4\n2,2\n",
                [],
                "PATH: 1 of 2 users have too few interactions to split. A user's training part is round(0.5 x "
                "interactions), halves to even, and must hold a pair. Expected 2 interactions or more of every user. "
                "Pass --min-interactions 2 to drop these users, or give data that is already split.",
            ),
            (
                "x.parquet",
                {"user_id": [1.0, float("nan")], "item_id": [1, 2]},
                [],
                "PATH: 1 user ids are missing or NaN, the first in data row 2. Expected an id in every row. Remove "
                "these rows or fill in the ids.",
            ),
            (
                "x.parquet",
                {"user_id": [1, 1], "item_id": [4, -4]},
                [],
                "PATH: 1 item ids are negative, the first -4 in data row 2. Expected whole numbers from 0; negative "
                "ones often stand for a missing id. Remove these rows, or give the ids as text.",
            ),
            (
                "x.csv",
                "user_id,item_id,rating\n1,2,\n1,3,5\n",
                ["--min-rating", "3"],
                "PATH: 1 of 2 rows have no rating, so --min-rating 3 cannot judge them. Expected a rating in every "
                "row. Leave --min-rating out, or remove or fill these rows.",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) and len(value) < 12 else "",
    )
    def test_data_that_cannot_be_read(
        self,
        refusal: Callable[..., str],
        tmp_path: Path,
        command: list[str],
        name: str,
        content: Any,
        options: list[str],
        text: str,
    ) -> None:
        path = tmp_path / name
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        elif content is not None:
            write(path, content)
        arguments = [str(tmp_path / "run") if part == "RUN" else part for part in command]
        assert refusal(*arguments, path, *options).replace(f"TMP/{name}", "PATH") == text
        assert not (tmp_path / "run").exists()

    def test_duplicate_pairs_are_kept_once_counted_and_said(self, ciess: Ciess, tmp_path: Path) -> None:
        path = write(tmp_path / "x.csv", "user_id,item_id\n1,2\n1,3\n1,2\n1,4\n1,4\n1,4\n1,5\n")
        status, out, err = ciess("data", path)
        assert status == 0
        assert err == "3 duplicate user-item pairs were merged: each pair is kept once.\n"
        assert read(path).counts()["interactions"] == 4
        assert "interactions" in out

    def test_dropped_users_are_counted_and_said(self, ciess: Ciess, tmp_path: Path) -> None:
        rows = [f"1,{item}" for item in range(8)] + ["2,0", "3,1"]
        path = write(tmp_path / "x.csv", "\n".join(["user_id,item_id", *rows]) + "\n")
        status, _, err = ciess("data", path, "--min-interactions", "2")
        assert status == 0
        assert err.startswith("2 users with fewer than 2 interactions were dropped (min_interactions)")

    @pytest.mark.parametrize(
        ("option", "value", "text"),
        [("--split-seed", "-1", "greater than or equal to 0"), ("--min-interactions", "0", "greater than 0")],
    )
    def test_reading_options_out_of_their_range(
        self, refusal: Callable[..., str], ratings: Path, option: str, value: str, text: str
    ) -> None:
        assert refusal("data", ratings, option, value) == (
            f"The options are not valid. {option}: found {value}; Input should be {text}. See --help for what each "
            "option takes."
        )


class TestFit:
    def test_summary_on_stdout_and_progress_on_stderr(
        self, ciess: Ciess, ratings: Path, finished: Path, tmp_path: Path
    ) -> None:
        status, out, err = ciess("fit", ratings, "--out", tmp_path / "run", *COLUMNS, *QUICK)
        assert status == 0
        assert out.splitlines()[0] == "ratings, lightgcn"
        assert err.splitlines()[0] == "[1/1] lightgcn equal-c80-s0"
        for file in ("results.parquet", "tables/equal-c80-s0/weights.safetensors", "tables/equal-c80-s0/card.json"):
            assert (tmp_path / "run" / file).exists()
        first, second = (folder / "tables" / "equal-c80-s0" for folder in (finished, tmp_path / "run"))
        for file in ("weights.safetensors", "ids.parquet", "edges.parquet"):
            assert (first / file).read_bytes() == (second / file).read_bytes()

    def test_a_log_has_plain_lines(self, ratings: Path, tmp_path: Path) -> None:
        """A process whose stderr is no terminal: no bars, no carriage returns, no warnings."""
        settings = [*QUICK, "--training.max-epochs", "10"]
        code = "import sys; from ciess.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "fit", str(ratings), "--out", str(tmp_path / "run"), *COLUMNS, *settings],
            capture_output=True,
            check=False,
        )
        err = done.stderr.decode()
        assert done.returncode == 0, err
        assert "\r" not in err
        assert "\x1b" not in err
        lines = err.splitlines()
        assert lines[0] == "[1/1] lightgcn equal-c80-s0"
        assert [line.split(" loss")[0] for line in lines[1:3]] == ["  choose epoch 5", "  choose epoch 10"]
        assert all(line.startswith(("  choose epoch ", "  refit epoch ")) for line in lines[1:])

    def test_a_directory_that_holds_a_run(self, refusal: Callable[..., str], ratings: Path, finished: Path) -> None:
        before = (finished / "results.parquet").read_bytes()
        assert refusal("fit", ratings, "--out", finished, *COLUMNS, *QUICK) == (
            f"{finished} already holds a run. An empty or new folder was expected. Choose another --out, go on with "
            "that run by --resume, or delete it by --overwrite."
        )
        assert (finished / "results.parquet").read_bytes() == before

    def test_overwrite_and_resume(self, ciess: Ciess, ratings: Path, finished: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        shutil.copytree(finished, out)
        status, _, err = ciess("fit", ratings, "--out", out, *COLUMNS, *QUICK, "--resume")
        assert (status, err) == (0, "[1/1] equal-c80-s0 is done already\n")
        status, _, err = ciess("fit", ratings, "--out", out, *COLUMNS, *QUICK, "--overwrite")
        assert (status, err.splitlines()[0]) == (0, "[1/1] lightgcn equal-c80-s0")

    def test_resume_without_a_run(self, refusal: Callable[..., str], ratings: Path, tmp_path: Path) -> None:
        assert refusal("fit", ratings, "--out", tmp_path / "run", *COLUMNS, *QUICK, "--resume") == (
            "TMP/run holds no run to resume: there is no config.yaml of one. Check --out, or leave --resume out to "
            "start one."
        )

    def test_a_folder_of_something_else(
        self, refusal: Callable[..., str], ciess: Ciess, ratings: Path, tmp_path: Path
    ) -> None:
        write(tmp_path / "thesis.tex", "years of work")
        assert refusal("fit", ratings, "--out", tmp_path, *COLUMNS, *QUICK, "--overwrite") == (
            "TMP holds files that are not a run of ciess: thesis.tex. An empty or new folder was expected. Choose "
            "another --out."
        )
        assert (tmp_path / "thesis.tex").read_text() == "years of work"

    def test_training_that_breaks_down_is_exit_code_1(self, ciess: Ciess, ratings: Path, tmp_path: Path) -> None:
        status, out, err = ciess("fit", ratings, "--out", tmp_path / "run", *COLUMNS, *QUICK, *BROKEN)
        assert (status, out) == (1, "")
        assert err.splitlines()[-1].startswith("ciess: The loss is ")
        for part in ("in epoch 1 ", "learning rate 1e+30 ", "seed 7;"):
            assert part in err
        assert "Traceback" not in err

    def test_debug_shows_where_it_happened(self, ratings: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError):
            main(["data", str(tmp_path / "missing"), "--debug"])
        with pytest.raises(FitError):
            main(["--debug", "fit", str(ratings), "--out", str(tmp_path / "run"), *COLUMNS, *QUICK, *BROKEN])


class TestRecommend:
    def test_one_user(self, ciess: Ciess, table: Path, ratings: Path) -> None:
        status, out, err = ciess("recommend", table, "--user", "u007", "-k", "4")
        assert (status, err) == (0, "")
        rows = [line.split() for line in out.splitlines()]
        expected = load(table).recommend("u007", k=4)
        assert [int(rank) for rank, _, _ in rows] == [1, 2, 3, 4]
        assert [int(item) for _, item, _ in rows] == expected.items
        assert [score for _, _, score in rows] == [f"{score:.4f}" for score in expected.scores]
        known = {what for who, what in _pairs(ratings) if who == "u007"}
        assert known.isdisjoint(expected.items)

    def test_known_items_can_be_included(self, ciess: Ciess, table: Path, ratings: Path) -> None:
        known = {what for who, what in _pairs(ratings) if who == "u007"}
        items = {int(line.split()[1]) for line in ciess(*_all_of(table), "--include-seen")[1].splitlines()}
        assert known < items
        assert known.isdisjoint(int(line.split()[1]) for line in ciess(*_all_of(table))[1].splitlines())

    def test_ten_items_by_default(self, ciess: Ciess, table: Path) -> None:
        assert len(ciess("recommend", table, "--user", "u007")[1].splitlines()) == 10

    @pytest.mark.parametrize("users", ["users.txt", "users.parquet"])
    @pytest.mark.parametrize("out", ["lists.csv", "lists.parquet"])
    def test_many_users_to_a_file(self, ciess: Ciess, table: Path, tmp_path: Path, users: str, out: str) -> None:
        wanted = ["u011", "u002", "u099"]
        if users.endswith(".txt"):
            write(tmp_path / users, "u011\n\n u002 \nu099\n")
        else:
            pq.write_table(pa.table({"other": [1, 2, 3], "user_id": wanted}), tmp_path / users)
        status, said, err = ciess("recommend", table, "--users", tmp_path / users, "--out", tmp_path / out, "-k", "2")
        assert (status, said, err) == (0, f"{tmp_path / out}: 6 recommendations\n", "")
        found = csv.read_csv(tmp_path / out) if out.endswith(".csv") else pq.read_table(tmp_path / out)
        expected = load(table).recommend_many(wanted, k=2)
        assert found.column_names == ["user_id", "rank", "item_id", "score"]
        for name in ("user_id", "rank", "item_id"):
            assert found[name].to_pylist() == expected[name].to_pylist()
        assert found["score"].to_pylist() == pytest.approx(expected["score"].to_pylist(), rel=1e-6)

    def test_an_unknown_user(self, refusal: Callable[..., str], table: Path, tmp_path: Path) -> None:
        text = (
            "The user 'nobody' is not in the table{}. Expected the id of one of its 120 users, such as 'u000', "
            "'u001', 'u002'. Give an id as it stands in the data that the table was trained on; a user without "
            "interactions has no row."
        )
        assert refusal("recommend", table, "--user", "nobody") == text.format("")
        users = write(tmp_path / "users.txt", "u001\nnobody\nnoone\n")
        out = tmp_path / "lists.csv"
        assert refusal("recommend", table, "--users", users, "--out", out) == text.format(
            " (2 of the 3 asked for are not)"
        )
        assert not out.exists()

    @pytest.mark.parametrize(
        "options",
        [[], ["--user", "u001", "--users", "f", "--out", "g"], ["--users", "f"], ["--user", "u001", "--out", "g"]],
    )
    def test_either_one_user_or_many(self, refusal: Callable[..., str], table: Path, options: list[str]) -> None:
        text = refusal("recommend", table, *options)
        assert text.endswith("Expected --user ID alone, or --users FILE together with --out FILE. Give one of the two.")
        assert text.startswith(f"Found {' '.join(options) or 'none of them'}. ")

    def test_users_that_cannot_be_read(self, refusal: Callable[..., str], table: Path, tmp_path: Path) -> None:
        write(tmp_path / "latin.txt", b"u001\n\xff\n")
        write(tmp_path / "broken.parquet", b"PAR1")
        for name in ("missing.txt", "missing.parquet", "latin.txt", "broken.parquet"):
            text = refusal("recommend", table, "--users", tmp_path / name, "--out", tmp_path / "lists.csv")
            assert text.startswith(f"Cannot read users from TMP/{name}: ")
            assert "Expected a text file with one id a line, or a Parquet file with a column user_id." in text
        pq.write_table(pa.table({"who": ["u001"], "what": [3]}), tmp_path / "other.parquet")
        assert refusal("recommend", table, "--users", tmp_path / "other.parquet", "--out", tmp_path / "o.csv") == (
            "TMP/other.parquet has no column user_id. The columns found are: who, what. Expected the ids in user_id. "
            "Rename their column."
        )

    def test_a_file_without_users(self, refusal: Callable[..., str], table: Path, tmp_path: Path) -> None:
        users = write(tmp_path / "users.txt", "\n")
        assert refusal("recommend", table, "--users", users, "--out", tmp_path / "lists.csv") == (
            "TMP/users.txt names no user. Expected one id a line, or rows in user_id. Put the ids into it."
        )

    def test_the_ending_chooses_the_format(self, refusal: Callable[..., str], table: Path, tmp_path: Path) -> None:
        users = write(tmp_path / "users.txt", "u001\n")
        assert refusal("recommend", table, "--users", users, "--out", tmp_path / "lists.txt") == (
            "The output file is TMP/lists.txt, but a name that ends in .csv or .parquet was expected: the ending "
            "chooses the format. Rename it."
        )

    def test_a_refusal_is_no_crash_at_exit(self, table: Path) -> None:
        """Arrow's threads and torch's must not abort a process that ends soon after it has read a table."""
        command = [sys.executable, "-m", "ciess", "recommend", str(table), "--user", "nobody"]
        for _ in range(5):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr

    @pytest.mark.parametrize("out", ["lists.csv", "lists.parquet"])
    def test_a_file_that_cannot_be_written(
        self, refusal: Callable[..., str], table: Path, tmp_path: Path, out: str
    ) -> None:
        users = write(tmp_path / "users.txt", "u001\n")
        text = refusal("recommend", table, "--users", users, "--out", tmp_path / "nowhere" / out)
        assert text.startswith(f"Cannot write TMP/nowhere/{out}: ")

    def test_no_items(self, refusal: Callable[..., str], table: Path) -> None:
        assert refusal("recommend", table, "--user", "u001", "-k", "0") == (
            "k is 0, but the number of items to recommend must be 1 or more. Choose such a k."
        )

    @pytest.mark.parametrize(
        "file", ["weights.safetensors", "model.safetensors", "ids.parquet", "edges.parquet", "card.json"]
    )
    def test_a_changed_byte(self, refusal: Callable[..., str], table: Path, file: str) -> None:
        content = bytearray((table / file).read_bytes())
        if file == "card.json":
            content = bytearray(content.replace(b'"equal"', b'"Equal"', 1))
        else:
            content[-1] ^= 1
        write(table / file, bytes(content))
        text = refusal("recommend", table, "--user", "u001")
        assert f"TMP/table/{file}" in text
        assert "changed" in text or "sha256" in text

    def test_a_newer_format(self, refusal: Callable[..., str], table: Path) -> None:
        card = json.loads((table / "card.json").read_text()) | {"format": FORMAT + 1}
        write(table / "card.json", json.dumps(card | {"card_sha256": content_sha256(card)}))
        text = refusal("recommend", table, "--user", "u001")
        assert text.startswith(f"TMP/table/card.json is of format {FORMAT + 1}, but this version of ciess (")
        assert "Upgrade ciess" in text

    def test_a_folder_without_a_table(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        text = refusal("recommend", tmp_path / "nothing", "--user", "u001")
        assert text.startswith("TMP/nothing holds no card.json, but a saved table was expected")


def _pairs(ratings: Path) -> list[tuple[str, int]]:
    content = csv.read_csv(ratings)
    return list(zip(content["who"].to_pylist(), content["what"].to_pylist(), strict=True))


def _all_of(table: Path) -> list[Any]:
    return ["recommend", table, "--user", "u007", "-k", "1000"]


def test_bench(ciess: Ciess, ratings: Path) -> None:
    status, out, err = ciess(
        "bench", ratings, *COLUMNS, "--rounds", "1", "--max-size", "16", "--threads", "1", "--device", "cpu"
    )
    assert (status, err) == (0, "")
    assert out.startswith("lightgcn on ratings: ")
    for figure in ("step / floor", "COO / step", "search min"):
        assert figure in out
    assert RecommenderConfig().training.batch_size == 10_000
    assert "batch 10,000, 1 threads, cpu" in out


def test_an_interrupt_says_how_to_go_on(ciess: Ciess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "fit_tables", interrupted)
    status, _, err = ciess("fit", "planted", "--out", tmp_path / "run")
    assert (status, err.strip()) == (
        130,
        "ciess: interrupted; the same command goes on from here with --resume (`ciess retrain` without it).",
    )


def test_one_column_cannot_be_both(refusal: Callable[..., str], ratings: Path) -> None:
    assert refusal("data", ratings, "--user-column", "who", "--item-column", "who") == (
        "--user-column and --item-column are both 'who'. Expected two columns. Name the right ones."
    )
