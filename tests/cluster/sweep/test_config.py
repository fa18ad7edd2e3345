"""What a sweep searches: a search for every combination of its lists, with names that tell them apart."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ciess.cluster.sweep.config import SweepConfig, variant_of_search
from ciess.config.models import BackboneName, LightGCNConfig, NCFConfig, NGCFConfig
from ciess.config.recommender import TUNED
from ciess.config.search import SearchConfig
from ciess.errors import InputError


def sweep(*settings: str, **changes: Any) -> SweepConfig:
    return SweepConfig(settings=settings, **changes)


def only(*settings: str, **changes: Any) -> SearchConfig:
    (search,) = sweep(*settings, **changes).searches.values()
    return search


def refusal(*settings: str) -> str:
    with pytest.raises(InputError) as caught:
        sweep(*settings).searches  # noqa: B018
    return str(caught.value)


class TestSearches:
    def test_a_search_for_every_combination(self) -> None:
        found = sweep(
            backbones=("lightgcn", "ncf"),
            memory_weights=(0.2, 1.0),
            targets=(0.9,),
            noises=("ou",),
            random_walk=("on", "off"),
            seeds=(0, 3),
        ).searches
        assert list(found) == [
            f"{backbone}-{mode}-ou-{walk}-s{seed}"
            for backbone in ("lightgcn", "ncf")
            for mode in ("w0.2", "w1", "t0.9")
            for walk in ("walk", "nowalk")
            for seed in (0, 3)
        ]
        one = found["ncf-w1-ou-nowalk-s3"]
        assert (one.backbone, one.memory_weight, one.noise, one.random_walk, one.seed) == ("ncf", 1.0, "ou", False, 3)
        assert (one.budget_mode, one.targets) == ("penalty", ())
        other = found["lightgcn-t0.9-ou-walk-s0"]
        assert (other.budget_mode, other.targets, other.budgets) == ("target", (0.9,), (0.9,))
        # Target mode starts from the weight that a search by itself starts from.
        assert other.memory_weight == SearchConfig().memory_weight

    def test_what_is_no_list_reaches_every_search(self) -> None:
        values: dict[str, Any] = {
            "episodes": 4,
            "iterations": 7,
            "lanes": 2,
            "sparsities": (0.5, 0.75),
            "candidates": 2,
            "max_size": 32,
            "threads": 3,
        }
        for search in sweep(memory_weights=(0.2,), targets=(0.9,), preset="paper", **values).searches.values():
            assert {name: getattr(search, name) for name in values} == values
            assert search.short_fit.epochs == 5
            assert search.short_fit.preset == "paper"
        retraining = sweep(**values).retraining
        assert (retraining.sparsity, retraining.candidates, retraining.project) == ((0.5, 0.75), 2, False)

    def test_a_search_by_itself_has_the_same_defaults(self) -> None:
        assert only() == SearchConfig(threads=1)

    @given(
        backbones=st.lists(st.sampled_from(get_args(BackboneName)), min_size=1, max_size=4),
        weights=st.lists(st.floats(0, 2), max_size=4),
        targets=st.lists(st.floats(0.01, 0.99), max_size=3),
        noises=st.lists(st.sampled_from(["gaussian", "ou", "uniform", "none"]), min_size=1, max_size=3),
        walks=st.lists(st.sampled_from(["on", "off"]), min_size=1, max_size=3),
        seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3),
    )
    def test_their_number_is_the_product_of_what_differs(
        self,
        backbones: list[Any],
        weights: list[float],
        targets: list[float],
        noises: list[Any],
        walks: list[Any],
        seeds: list[int],
    ) -> None:
        """Whatever stands in a list twice is searched once, and two different values never share a name."""
        if not weights and not targets:
            targets = [0.9]
        found = sweep(
            backbones=backbones, memory_weights=weights, targets=targets, noises=noises, random_walk=walks, seeds=seeds
        ).searches
        expected = {
            (backbone, weight, target, noise, walk, seed)
            for backbone in backbones
            for weight, target in [*((weight, ()) for weight in weights), *((0.4, (target,)) for target in targets)]
            for noise in noises
            for walk in walks
            for seed in seeds
        }
        searches = [
            (c.backbone, c.memory_weight, c.targets, c.noise, "on" if c.random_walk else "off", c.seed)
            for c in found.values()
        ]
        assert set(searches) == expected
        assert len(searches) == len(expected)
        assert {len(name.split("-")) for name in found} == {5}
        assert not any("/" in name or " " in name for name in found)

    def test_two_values_that_look_alike_are_two_searches(self) -> None:
        found = sweep(memory_weights=(0.4, 0.4000001), targets=(0.9, 0.9000001)).searches
        assert list(found) == [
            f"lightgcn-{mode}-gaussian-walk-s0" for mode in ("w0.4", "w0.4000001", "t0.9", "t0.9000001")
        ]

    def test_a_small_weight_has_no_exponent(self) -> None:
        """Tables and pictures take names apart at their dashes."""
        assert list(sweep(memory_weights=(0.00001,)).searches) == ["lightgcn-w0.00001-gaussian-walk-s0"]

    def test_a_name_without_its_seed(self) -> None:
        names = {variant_of_search(name) for name in sweep(seeds=(0, 1, 22), noises=("ou", "none")).searches}
        assert names == {"lightgcn-w0.4-ou-walk", "lightgcn-w0.4-none-walk"}


class TestBackbones:
    @pytest.mark.parametrize(
        ("backbone", "model"), [("lightgcn", LightGCNConfig), ("ngcf", NGCFConfig), ("ncf", NCFConfig)]
    )
    def test_settings_leave_the_tuned_defaults_of_a_backbone_alone(self, backbone: Any, model: type) -> None:
        """One setting for all backbones, and each keeps what it was tuned to beside it."""
        training = only("training.max-epochs=60", backbones=(backbone,)).training
        assert training.max_epochs == 60
        tuned = {name: getattr(training, name) for name in TUNED[backbone]}
        assert tuned == TUNED[backbone]
        search = only(backbones=(backbone,))
        assert isinstance(search.model, model)
        assert search == SearchConfig(backbone=backbone, threads=1)

    def test_a_setting_stands_before_a_tuned_default(self) -> None:
        training = only("training.learning-rate=0.05").training
        assert training.learning_rate == 0.05
        assert training.learning_rate_decay == TUNED["lightgcn"]["learning_rate_decay"]

    def test_the_short_fit_keeps_its_preset_beside_a_setting(self) -> None:
        short = only("short-fit.batch-size=77", preset="official").short_fit
        assert (short.preset, short.batch_size, short.batches, short.learning_rate) == ("official", 77, 2000, 0.03)


class TestSettings:
    def test_they_reach_every_search_with_their_types(self) -> None:
        found = sweep(
            "agent.gamma=0",
            "training.max-epochs=60",
            "training.learning_rate=1e-3",
            "agent.target-critic-every-update=true",
            "agent.gradient-clip=null",
            "model.layers=2",
            " include-equal = false",
            "noise-place=after",
            "device=cpu",
            memory_weights=(0.2, 0.8),
            targets=(0.9,),
        ).searches
        assert len(found) == 3
        for search in found.values():
            values = (search.agent.gamma, search.training.max_epochs, search.training.learning_rate)
            assert values == (0.0, 60, 0.001)
            assert [type(value) for value in values] == [float, int, float]
            assert search.agent.target_critic_every_update is True
            assert search.agent.gradient_clip is None
            assert isinstance(search.model, LightGCNConfig)
            assert search.model.layers == 2
            assert (search.include_equal, search.noise_place, search.device) == (False, "after", "cpu")

    def test_the_last_of_two_counts(self) -> None:
        assert only("agent.gamma=0", "agent.gamma=0.5").agent.gamma == 0.5

    def test_a_value_may_hold_an_equals_sign(self) -> None:
        with pytest.raises(ValidationError) as caught:
            only("noise-place=a=b")
        assert caught.value.errors()[0]["input"] == "a=b"

    @pytest.mark.parametrize("setting", ["agent.gamma", "=3", "", "agent.=3", "agent"])
    def test_what_is_not_of_the_form(self, setting: str) -> None:
        assert refusal(setting) == (
            f"--settings {setting!r} is not of the form KEY=VALUE; a setting of `ciess search`, such as "
            "agent.gamma=0, was expected. See `ciess search --help` for their names."
        )

    @pytest.mark.parametrize(
        "setting",
        [
            *("memory-weight=0.3", "seed=1", "noise=ou", "backbone=ncf", "budget-mode=target", "targets=[0.9]"),
            *("lanes=2", "random-walk=false", "max_size=16", "threads=2", "short-fit.preset=fast", "preset=fast"),
        ],
    )
    def test_what_has_an_option_of_its_own(self, setting: str) -> None:
        assert refusal("agent.gamma=0", setting) == (
            f"--settings {setting!r} sets what the sweep has an option for; a setting without one was expected. See "
            "--help for the options."
        )

    @pytest.mark.parametrize(
        "settings",
        [
            ("short-fit=1",),
            ("lanes.more=2",),
            ("seed.more=2",),
            ("agent=1", "agent.gamma=0"),
            ("agent.gamma.more=1", "agent.gamma=0", "agent.gamma.more=1"),
            ("agent.gamma=[1",),
            ("agent.gamma=a: b: c",),
        ],
    )
    def test_what_cannot_be_put_together_is_an_error_of_the_user(self, settings: tuple[str, ...]) -> None:
        """And never a traceback."""
        with pytest.raises((InputError, ValidationError)):
            only(*settings)

    def test_the_reason_is_said(self) -> None:
        assert refusal("agent.gamma=[1") == (
            "--settings 'agent.gamma=[1' cannot be taken: while parsing a flow sequence in \"<unicode string>\", line "
            "1, column 1: [1 ^ expected ',' or ']', but got '<stream end>' in \"<unicode string>\", line 1, column 3: "
            "[1 ^. A value in YAML was expected, such as 0.5 or true, for a setting of its own. Correct the value, or "
            "leave one of the two out."
        )
        assert refusal("agent=1", "agent.gamma=0").startswith(
            "--settings 'agent.gamma=0' cannot be taken: another one sets all of it. "
        )

    @pytest.mark.parametrize(
        ("setting", "name"),
        [("gamma=0", "gamma"), ("agent.gama=0", "gama"), ("training.epochs=3", "epochs"), ("model.width=3", "width")],
    )
    def test_a_name_that_is_none_is_named(self, setting: str, name: str) -> None:
        with pytest.raises(ValidationError) as caught:
            only(setting)
        assert [error["loc"][-1] for error in caught.value.errors()] == [name]
        assert caught.value.errors()[0]["type"] == "extra_forbidden"

    def test_values_that_do_not_go_together(self) -> None:
        with pytest.raises(ValidationError, match="3 episodes cannot be shared by 2 lanes"):
            only(episodes=3, lanes=2)


class TestRefusals:
    @pytest.mark.parametrize("field", ["backbones", "noises", "random_walk", "seeds", "sparsities"])
    def test_empty_lists(self, field: str) -> None:
        with pytest.raises(ValidationError) as caught:
            sweep(**{field: ()})
        assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [((field,), "too_short")]

    def test_nothing_to_search(self) -> None:
        with pytest.raises(ValidationError) as caught:
            sweep(memory_weights=())
        (error,) = caught.value.errors()
        assert error["msg"] == (
            "Value error, neither memory weights nor targets nor strategies were given; one or more of any were "
            "expected; give --memory-weights, such as 0.2 0.4, or --targets, such as 0.9, or --strategies, such as "
            "kinds"
        )

    @pytest.mark.parametrize(
        ("asked", "weights"),
        [
            ({}, (0.4,)),
            ({"strategies": ("kinds",)}, ()),
            ({"targets": (0.9,)}, ()),
            ({"targets": (0.9,), "memory_weights": (0.2,)}, (0.2,)),
        ],
    )
    def test_a_price_is_searched_by_default_where_nothing_else_is(
        self, asked: dict[str, Any], weights: tuple[float, ...]
    ) -> None:
        assert SweepConfig(**asked).memory_weights == weights

    def test_a_search_for_every_sparsity_strategy_and_seed(self) -> None:
        config = sweep(memory_weights=(), sparsities=(0.9, 0.95), strategies=("kinds", "random"), seeds=(0, 1), fits=24)
        found = config.searches
        assert list(found) == [
            f"lightgcn-b{sparsity}-{strategy}-halves-s{seed}"
            for sparsity in ("0.9", "0.95")
            for strategy in ("kinds", "random")
            for seed in (0, 1)
        ]
        one = found["lightgcn-b0.95-random-halves-s1"]
        assert (one.sparsity, one.strategy, one.seed, one.episodes, one.halves) == ((0.95,), "random", 1, 24, True)

    def test_targets_alone_are_enough(self) -> None:
        assert list(sweep(memory_weights=(), targets=(0.9, 0.9)).searches) == ["lightgcn-t0.9-gaussian-walk-s0"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("memory_weights", (-0.1,)),
            ("targets", (1.0,)),
            ("sparsities", (90,)),
            ("seeds", (-1,)),
            ("noises", ("brown",)),
            ("random_walk", (True,)),
            ("methods", ("pap",)),
            ("max_size", 257),
            ("weights", (0.4,)),
        ],
    )
    def test_values_out_of_range(self, field: str, value: Any) -> None:
        with pytest.raises(ValidationError) as caught:
            sweep(**{field: value})
        assert caught.value.errors()[0]["loc"][0] == field
