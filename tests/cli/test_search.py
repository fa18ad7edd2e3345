"""`ciess search` and `ciess status` as a user meets them, and real processes that are really killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.cli import main
from ciess.config.agent import AgentConfig
from ciess.config.data import DataConfig
from ciess.config.recommender import TrainingConfig
from ciess.config.search import SearchConfig
from ciess.config.short_fit import SHORT_FITS, ShortFitConfig
from ciess.config.types import Frozen
from ciess.data import Interactions, read
from ciess.data.planted import Planted
from ciess.runs import search as search_run
from ciess.search.recorder import search_fingerprint
from ciess.storage.checkpoint import last_number, load_checkpoint
from ciess.storage.storage import Storage

QUICK = [
    *("--max-size", "16", "--sparsities", "0.5", "0.8", "--episodes", "4", "--iterations", "4", "--lanes", "2"),
    *("--threads", "1", "--device", "cpu", "--training.learning-rate", "0.05", "--training.batch-size", "500"),
    *("--training.max-epochs", "6", "--training.evaluate-every", "2", "--short-fit.epochs", "2"),
    *("--agent.hidden", "16", "--agent.batch-size", "64"),
]
FITS = 3 + 4 * 4
"""Short fits of QUICK: three choices of equal sizes, four episodes of four iterations."""

Ciess = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these searches."""
    monkeypatch.setattr(search_run, "search_figures", lambda *_: {})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[SearchConfig]:
    """Settings of the searches that `ciess search` asks for, none of which runs."""
    found: list[SearchConfig] = []

    def spy(_data: Interactions, config: SearchConfig, *_: Any) -> None:
        found.append(config)

    monkeypatch.setattr(search_run, "run_search", spy)
    monkeypatch.setattr(search_run, "describe_search", lambda _: "done")
    return found


@pytest.fixture(scope="module")
def interactions(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted data as a CSV file."""
    pairs = planted.data.train + planted.data.valid + planted.data.test
    lines = [f"{user},{item}" for user, item in zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)]
    path = tmp_path_factory.mktemp("data") / "interactions.csv"
    path.write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def undisturbed(interactions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a search that nobody interrupted."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_run, "search_figures", lambda *_: {})
        main(["search", str(interactions), "--out", str(out), *QUICK])
    return out


def assert_same_run(first: Path, second: Path, data: Interactions) -> None:
    runs = [Storage(first), Storage(second)]
    candidates = [run.read_table("candidates.parquet") for run in runs]
    assert len(candidates[0]) == FITS
    assert candidates[0].equals(candidates[1])
    histories = [run.read_table("history.parquet") for run in runs]
    seconds = [name for name in histories[0].column_names if name.endswith("_seconds")]
    assert len(seconds) == 7
    histories = [history.drop_columns(seconds) for history in histories]
    assert len(histories[0]) == 16
    assert histories[0].equals(histories[1])
    config = SearchConfig.model_validate(runs[0].read_yaml("config.yaml")["config"])
    arrays = []
    for run in runs:
        state, notes = load_checkpoint(run.child("checkpoint"), search_fingerprint(data, config))
        assert state is not None
        assert notes == []
        arrays.append({name: (v.dtype, v.shape, v.tobytes()) for name, v in state["arrays"].items()})
    assert arrays[0] == arrays[1]
    for name in ("quality.parquet", "weights.safetensors", "history.parquet"):
        assert runs[0].read_bytes(f"reference/{name}") == runs[1].read_bytes(f"reference/{name}")


class TestOptions:
    def test_every_setting_can_be_given(self, ciess: Ciess) -> None:
        status, out, err = ciess("search", "--help")
        assert (status, err) == (0, "")
        for name in [*SearchConfig.model_fields, *DataConfig.model_fields, "resume", "overwrite", "reference_from"]:
            if name not in ("model", "training", "short_fit", "agent"):
                assert f"--{name.replace('_', '-')} " in out.replace(",", " "), name
        sections: dict[str, type[Frozen]] = {
            "training": TrainingConfig,
            "short-fit": ShortFitConfig,
            "agent": AgentConfig,
        }
        for section, settings in sections.items():
            for name in settings.model_fields:
                assert f"--{section}.{name.replace('_', '-')} " in out.replace(",", " "), name

    def test_without_options_it_is_the_default_search(self, ciess: Ciess, asked: list[SearchConfig]) -> None:
        assert ciess("search", "planted", "--out", "x") == (0, "done\n", "")
        assert asked == [SearchConfig()]

    @pytest.mark.parametrize("backbone", SHORT_FITS)
    @pytest.mark.parametrize("preset", ["default", "fast", "paper", "official"])
    def test_a_preset_sets_the_short_fit_of_the_backbone(
        self, ciess: Ciess, asked: list[SearchConfig], backbone: str, preset: str
    ) -> None:
        expected = SearchConfig.model_validate({"backbone": backbone, "short_fit": {"preset": preset}})
        for form in ("--short-fit.preset {}", "--short-fit.preset={}", "--short_fit.preset {}"):
            ciess("search", "planted", "--out", "x", "--backbone", backbone, *form.format(preset).split())
        assert asked == [expected] * 3
        for name, value in SHORT_FITS[backbone][preset].items():
            assert getattr(expected.short_fit, name) == value

    def test_what_is_given_goes_before_the_preset(self, ciess: Ciess, asked: list[SearchConfig]) -> None:
        given: list[tuple[str, dict[str, Any]]] = [
            ("--short-fit.learning-rate 0.5", {"learning_rate": 0.5}),
            ("--short-fit.epochs 3", {"epochs": 3}),
            ("--short-fit.batches 7", {"batches": 7}),
        ]
        for preset in ("default", "official"):
            asked.clear()
            for options, _ in given:
                ciess("search", "planted", "--out", "x", "--short-fit.preset", preset, *options.split())
            wanted: list[Any] = [{"preset": preset} | values for _, values in given]
            assert asked == [SearchConfig(short_fit=values) for values in wanted]
            assert asked[1].short_training(10)[0] == 3
            assert asked[2].short_training(4)[0] == 2

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            *((f"--{name} 0", f"--{name}: found 0; Input should be greater than 0") for name in ("episodes", "lanes")),
            ("--iterations -3", "--iterations: found -3; Input should be greater than 0"),
            (
                "--episodes 5 --lanes 2",
                "5 episodes cannot be shared by 2 lanes; expected a multiple of the lanes, such as 4 episodes",
            ),
            (
                "--targets 0.9",
                "targets 0.9 were given, but budget mode penalty projects to none; choose --budget-mode target, or "
                "leave the targets out",
            ),
            (
                "--budget-mode target",
                "budget mode target needs at least one target sparsity; give --targets, such as 0.9",
            ),
            (
                "--budget-mode target --targets 1",
                "--targets: found 1.0; Input should be less than 1; it is a share, such as 0.9 for 90 %",
            ),
            ("--agent.hidden 0", "--agent.hidden: found 0; Input should be greater than 0"),
            ("--short-fit.epochs 0", "--short-fit.epochs: found 0; Input should be greater than 0"),
            (
                "--training.learning-rate -1",
                "--training.learning-rate: found -1.0; Input should be greater than 0",
            ),
            ("--model.layers 0", "--model.layers: found 0; Input should be greater than 0"),
            (
                "--short-fit.epochs 3 --short-fit.batches 7",
                "both epochs 3 and batches 7 were given for the short fit; one of them was expected; set the other to "
                "None",
            ),
            (
                "--short-fit.decay-batches 9",
                "decay_batches 9 was given without learning_rate_decay, the factor that they stand for; give both, or "
                "leave decay_batches out",
            ),
        ],
    )
    def test_options_that_are_wrong_or_do_not_agree(
        self, refusal: Callable[..., str], tmp_path: Path, options: str, text: str
    ) -> None:
        assert refusal("search", "planted", "--out", tmp_path / "run", *options.split()) == (
            f"The options are not valid. {text}. See --help for what each option takes."
        )
        assert not (tmp_path / "run").exists()

    def test_an_unknown_preset(self, ciess: Ciess, tmp_path: Path) -> None:
        status, out, err = ciess("search", "planted", "--out", tmp_path / "run", "--short-fit.preset", "quick")
        assert (status, out) == (2, "")
        text = " ".join(err.replace("│", " ").split())
        assert "invalid choice 'quick' for argument '--short-fit.preset'" in text
        assert "Expected one of ('default', 'fast', 'paper', 'official')" in text
        assert "Traceback" not in err
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        "options", ["--budget-mode target --targets 0.999", "--sparsities 0.5 0.999"], ids=["target", "penalty"]
    )
    def test_a_budget_that_cannot_be_met(
        self, refusal: Callable[..., str], interactions: Path, tmp_path: Path, options: str
    ) -> None:
        out = tmp_path / "run"
        text = refusal("search", interactions, "--out", out, "--max-size", "16", *options.split())
        assert text == (
            "A sparsity of 0.999 leaves 3 parameters for 200 rows, but every row keeps at least 1 of its 16 "
            "dimensions. Choose a sparsity of at most 0.9375."
        )
        assert not out.exists()


class TestPlaces:
    def test_a_file_in_the_place_of_the_folder(
        self, refusal: Callable[..., str], interactions: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("kept")
        for out in (tmp_path / "file", tmp_path / "file" / "run"):
            text = refusal("search", interactions, "--out", out, *QUICK)
            assert str(out).replace(str(tmp_path), "TMP") in text
        assert (tmp_path / "file").read_text() == "kept"

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can write")
    def test_a_place_where_nobody_can_write(self, refusal: Callable[..., str], interactions: Path) -> None:
        text = refusal("search", interactions, "--out", "/proc/self/run", *QUICK)
        assert text.startswith("Cannot write /proc/")
        assert text.endswith("Make room or choose another folder.")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_is_read_only(self, refusal: Callable[..., str], interactions: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        out.mkdir(mode=0o500)
        assert refusal("search", interactions, "--out", out, *QUICK).startswith("Cannot write TMP/run/config.yaml: ")
        assert refusal("search", interactions, "--out", out / "deeper", *QUICK).startswith("Cannot write TMP/run/")

    def test_status_of_a_folder_without_a_run(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        for out in (tmp_path, tmp_path / "nowhere"):
            assert " holds no run: a config.yaml that ciess wrote was expected." in refusal("status", out)

    def test_resume_without_a_run(self, refusal: Callable[..., str], interactions: Path, tmp_path: Path) -> None:
        text = refusal("search", interactions, "--out", tmp_path / "run", *QUICK, "--resume")
        assert text.startswith("TMP/run holds no run to resume: ")

    def test_a_run_that_is_there(self, refusal: Callable[..., str], interactions: Path, undisturbed: Path) -> None:
        command = ["search", interactions, "--out", undisturbed, *QUICK]
        assert refusal(*command).startswith(f"{undisturbed} already holds a run.")
        text = refusal(*command, "--resume", "--memory-weight", "0.1", "--split-seed", "3")
        assert "config.memory_weight was 0.4, now 0.1; data.split_seed was 0, now 3." in text
        assert refusal(*command, "--resume", "--episodes", "2").startswith(
            f"{undisturbed} holds a search that has reached episode 4, but --episodes is 2."
        )


class TestFinished:
    def test_summary_on_stdout_and_progress_on_stderr(
        self, ciess: Ciess, interactions: Path, undisturbed: Path
    ) -> None:
        status, out, err = ciess("search", interactions, "--out", undisturbed, *QUICK, "--resume")
        assert status == 0
        assert out.startswith(f"{FITS} masks visited.")
        assert f"\nfigures are in {undisturbed}/figures\n" in out
        assert err.splitlines()[-2] == f"Going on after {FITS} of {FITS} short fits."

    def test_status(self, ciess: Ciess, undisturbed: Path) -> None:
        status, out, err = ciess("status", undisturbed)
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "interactions, lightgcn: 120 users, 80 items"
        assert lines[2] == "search: 16 of 16 iterations done"


MORTAL = """
import os, signal, sys
from ciess.cli import main
from ciess.runs import search
from ciess.storage import Storage
from ciess.training import loop

place, number = sys.argv[1], int(sys.argv[2])
fits = 0
epoch, short_fit, write = loop.Training.epoch, search.short_fit, Storage.write_bytes

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def epoch_or_die(self, number_of_epoch):
    loss = epoch(self, number_of_epoch)
    if (place, number) in (("reference", number_of_epoch), ("fit", fits)):
        die()
    return loss

def count(*arguments):
    global fits
    fits += 1
    return short_fit(*arguments)

def write_or_die(self, name, content):
    write(self, name, content)
    if place == "checkpoint" and self.root.endswith(f"checkpoint/{number:06d}") and name == "values.json":
        die()

loop.Training.epoch, search.short_fit, Storage.write_bytes = epoch_or_die, count, write_or_die
main(sys.argv[3:])
"""


class TestKilled:
    def test_at_the_worst_moments(self, ciess: Ciess, interactions: Path, undisturbed: Path, tmp_path: Path) -> None:
        """One run, thrice: in the training of the reference, in a short fit, between two files of a checkpoint."""
        out = tmp_path / "killed"
        command = ["search", str(interactions), "--out", str(out), *QUICK]

        def run_until(place: str, number: int, *options: str) -> list[str]:
            done = subprocess.run(
                [sys.executable, "-c", MORTAL, place, str(number), *command, *options],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == -signal.SIGKILL, done.stderr
            return done.stderr.splitlines()

        run_until("reference", 3)
        assert "reference: in training, epoch 2, best 0." in ciess("status", out)[1]
        run_until("fit", 6, "--resume")
        assert Storage(out).child("checkpoint").names() == ["000004", "000005"]
        assert "search: 2 of 16 iterations done" in ciess("status", out)[1]
        lines = run_until("checkpoint", 9, "--resume")
        assert f"Going on after 5 of {FITS} short fits." in lines
        assert not [line for line in lines if line.startswith("reference: lightgcn at")]
        assert sorted(path.name for path in (out / "checkpoint" / "000009").iterdir()) == [
            *("arrays.safetensors", "values.json")
        ]
        status, _, err = ciess(*command, "--resume")
        assert status == 0
        assert (
            f"Checkpoint {out}/checkpoint/000009 cannot be used: it has no manifest, so its writing was cut short. "
            f"Going on from {out}/checkpoint/000008."
        ) in err.splitlines()
        assert_same_run(undisturbed, out, read(interactions))

    def test_from_outside(self, ciess: Ciess, interactions: Path, undisturbed: Path, tmp_path: Path) -> None:
        """At a moment that nobody chose, by another process."""
        out = tmp_path / "killed"
        command = ["search", str(interactions), "--out", str(out), *QUICK]
        process = subprocess.Popen(
            [sys.executable, "-m", "ciess", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while last_number(Storage(out / "checkpoint")) < 5 and process.poll() is None:
                time.sleep(0.005)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL
        reached = last_number(Storage(out / "checkpoint"))
        assert 5 <= reached < FITS
        status, _, err = ciess(*command, "--resume")
        assert status == 0
        assert f"Going on after {reached} of {FITS} short fits." in err.splitlines()
        assert_same_run(undisturbed, out, read(interactions))
