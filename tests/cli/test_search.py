"""Options of `ciess search`, as a user meets them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.config.agent import AgentConfig
from ciess.config.data import DataConfig
from ciess.config.kinds import KindsConfig
from ciess.config.recommender import TrainingConfig
from ciess.config.search import SearchConfig
from ciess.config.short_fit import SHORT_FITS, ShortFitConfig
from ciess.config.starts import GentleConfig
from ciess.config.types import Frozen
from ciess.data import Interactions
from ciess.runs import search as search_run

Ciess = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[SearchConfig]:
    """Settings of the searches that `ciess search` asks for, none of which runs."""
    found: list[SearchConfig] = []

    def spy(_data: Interactions, config: SearchConfig, *_: Any) -> None:
        found.append(config)

    monkeypatch.setattr(search_run, "run_search", spy)
    monkeypatch.setattr(search_run, "describe_search", lambda _: "done")
    return found


class TestOptions:
    def test_a_sparsity_is_all_that_a_search_needs(self, ciess: Ciess, asked: list[SearchConfig]) -> None:
        status, _, err = ciess("search", "planted", "--sparsity", "0.9", "0.95", "--out", "x")
        assert (status, err) == (0, "")
        assert asked == [SearchConfig(sparsity=(0.9, 0.95))]

    def test_what_else_is_said_decides_the_other_defaults(self, ciess: Ciess, asked: list[SearchConfig]) -> None:
        said = ("--sparsity", "0.9", "--fits", "30", "--no-halves", "--kinds.population", "5")
        assert ciess("search", "planted", *said, "--out", "x")[0] == 0
        assert (
            ciess("search", "planted", "--sparsity", "0.9", "--strategy", "td3", "--lanes", "2", "--out", "x")[0] == 0
        )
        kinds = {"population": 5}
        assert asked == [
            SearchConfig(sparsity=(0.9,), fits=30, halves=False, kinds=kinds),
            SearchConfig(sparsity=(0.9,), strategy="td3", lanes=2),
        ]

    def test_a_price_beside_a_sparsity_is_refused(self, ciess: Ciess) -> None:
        status, _, err = ciess("search", "planted", "--sparsity", "0.9", "--memory-weight", "0.4", "--out", "x")
        assert status == 2
        assert err == (
            "ciess: The options are not valid. found memory weight 0.4 beside sparsity 0.9: a price is for a search "
            "without a budget; leave one of --memory-weight and --sparsity out. See --help for what each option takes."
            "\n"
        )

    def test_every_setting_can_be_given(self, ciess: Ciess) -> None:
        status, out, err = ciess("search", "--help")
        assert (status, err) == (0, "")
        for name in [*SearchConfig.model_fields, *DataConfig.model_fields, "resume", "overwrite", "reference_from"]:
            if name not in ("model", "training", "short_fit", "agent", "gentle", "kinds"):
                assert f"--{name.replace('_', '-')} " in out.replace(",", " "), name
        sections: dict[str, type[Frozen]] = {
            "training": TrainingConfig,
            "short-fit": ShortFitConfig,
            "gentle": GentleConfig,
            "kinds": KindsConfig,
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
            ("--short-fit.epochs -1", "--short-fit.epochs: found -1; Input should be greater than or equal to 0"),
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
        text = refusal("search", interactions, "--out", out, "--max-size", "16", "--min-size", "1", *options.split())
        assert text == (
            "A sparsity of 0.999 leaves 3 parameters for 200 rows, but every row keeps at least 1 of its 16 "
            "dimensions. Choose a sparsity of at most 0.9375."
        )
        assert not out.exists()
