"""Settings of a sweep: lists of what is varied, and the searches and retrainings that they stand for."""

import itertools
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from pydantic import Field, PositiveInt, model_validator

from ciess.config.budgeted import FITS
from ciess.config.fit import FitConfig, MethodName
from ciess.config.methods import ESAPNConfig, OptEmbedConfig, PEPConfig
from ciess.config.models import BackboneName
from ciess.config.retrain import RetrainConfig
from ciess.config.search import SearchConfig
from ciess.config.short_fit import Preset
from ciess.config.starts import StartedConfig
from ciess.config.types import Frozen, Seed, Sparsity
from ciess.errors import InputError

Noise = Literal["gaussian", "ou", "uniform", "none"]
OnOff = Literal["on", "off"]


class SweepConfig(Frozen):
    """A search for every combination of the lists, and what is retrained of each."""

    backbones: Annotated[tuple[BackboneName, ...], Field(min_length=1)] = ("lightgcn",)
    """Base recommenders (section 3.1)."""
    memory_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """lambda of Eq. 10: a search in penalty mode for each (section 3.6.1: 0.2 to 1.2 on MovieLens-1M). None: 0.4, or
    none beside targets or strategies."""
    targets: tuple[Sparsity, ...] = ()
    """Sparsities to project to: a search in target mode for each."""
    strategies: tuple[Literal["kinds", "td3", "random"], ...] = ()
    """Strategies that search at each of `sparsities`, on halves of validation (`ciess search --sparsity`): a search for
    each sparsity and strategy."""
    fits: PositiveInt = FITS
    """Short fits of each of these."""
    noises: Annotated[tuple[Noise, ...], Field(min_length=1)] = ("gaussian",)
    """epsilon of Eq. 11 (Table 2)."""
    random_walk: Annotated[tuple[OnOff, ...], Field(min_length=1)] = ("on",)
    """With and without the walk of Eq. 12-14 (Table 2)."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Seeds of searches and of the retraining of their masks. Not given in the paper."""
    episodes: PositiveInt = 30
    """M of Algorithm 1, over all lanes together (section 3.3: 30)."""
    iterations: PositiveInt = 10
    """T of Algorithm 1 (section 3.3: 10)."""
    lanes: PositiveInt = 1
    """Episodes that run side by side; their fits are what the workers of a search share. 1 is Algorithm 1."""
    sparsities: Annotated[tuple[Sparsity, ...], Field(min_length=1)] = (0.8, 0.9, 0.95)
    """Budgets c of Eq. 15 to retrain for, the columns of the table (section 3.2)."""
    candidates: PositiveInt = 3
    """l: masks a search and budget that are retrained (section 2.3)."""
    methods: tuple[MethodName, ...] = ("full", "equal", "mixed")
    """Methods beside the searches, trained and tested by the same protocol (section 3.1)."""
    max_size: Annotated[int, Field(ge=1, le=256)] = 128
    """d_max: columns of the full table (section 3.2: 128)."""
    threads: PositiveInt = 1
    """CPU threads of a fit. Equal bits need equal thread counts, so they do not follow the CPUs of a worker."""
    preset: Preset = "default"
    """Short fit of each iteration: `default`, `fast`, `paper` or `official`."""
    settings: tuple[str, ...] = ()
    """Any other setting of `ciess search`, for every search, such as agent.gamma=0 or training.max-epochs=60."""
    pep: PEPConfig = PEPConfig()
    """Settings of pep."""
    esapn: ESAPNConfig = ESAPNConfig()
    """Settings of esapn."""
    optembed: OptEmbedConfig = OptEmbedConfig()
    """Settings of optembed."""

    @model_validator(mode="before")
    @classmethod
    def _weight_where_nothing_else_is_searched(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("memory_weights") is not None:
            return values
        return {**values, "memory_weights": () if values.get("targets") or values.get("strategies") else (0.4,)}

    @model_validator(mode="after")
    def _something_to_search(self) -> Self:
        if not self.memory_weights and not self.targets and not self.strategies:
            raise ValueError(
                "neither memory weights nor targets nor strategies were given; one or more of any were expected; give "
                "--memory-weights, such as 0.2 0.4, or --targets, such as 0.9, or --strategies, such as kinds"
            )
        return self

    @property
    def searches(self) -> dict[str, SearchConfig]:
        """By name, such as `lightgcn-w0.4-gaussian-walk-s0`: weight or target, noise, with or without walk, seed.

        Those of `strategies` are named `lightgcn-b0.9-kinds-halves-s0`.

        Raises:
            InputError: `settings` that cannot be read.
            ValidationError: values that do not go together.
        """
        further = _nested(self.settings)
        prices = dict.fromkeys(self.memory_weights or ())
        modes: list[tuple[str, dict[str, Any]]] = [(f"w{_shown(price)}", {"memory_weight": price}) for price in prices]
        modes += [(f"t{_shown(target)}", _target(target)) for target in dict.fromkeys(self.targets)]
        lists = (self.backbones, modes, self.noises, self.random_walk, self.seeds)
        found: dict[str, SearchConfig] = {}
        for backbone, (mode, budget), noise, walk, seed in itertools.product(*lists):
            values = {
                "backbone": backbone,
                "noise": noise,
                "random_walk": walk == "on",
                "seed": seed,
                **{name: getattr(self, name) for name in _SHARED},
                **budget,
                "preset": "paper" if self.preset == "paper" else "default",
                "short_fit": {"preset": self.preset},
            }
            name = f"{backbone}-{mode}-{noise}-{'walk' if walk == 'on' else 'nowalk'}-s{seed}"
            found[name] = SearchConfig.model_validate(_merged(values, further))
        searched = list(itertools.product(self.backbones, self.sparsities, self.strategies, self.seeds))
        for backbone, sparsity, strategy, seed in dict.fromkeys(searched):
            values = {
                "backbone": backbone,
                "sparsity": (sparsity,),
                "strategy": strategy,
                "fits": self.fits,
                "seed": seed,
                **{name: getattr(self, name) for name in ("max_size", "threads")},
            }
            name = f"{backbone}-b{_shown(sparsity)}-{strategy}-halves-s{seed}"
            found[name] = SearchConfig.model_validate(_merged(values, further))
        return found

    def methods_of(self, recommender: StartedConfig) -> FitConfig:
        """Settings of the methods for a backbone as the searches train it."""
        # Whatever start and training a search's masks get, equal sizes get too.
        shared = {name: getattr(recommender, name) for name in StartedConfig.model_fields}
        return FitConfig(**shared, pep=self.pep, esapn=self.esapn, optembed=self.optembed)

    @property
    def retraining(self) -> RetrainConfig:
        """What is retrained of each search."""
        return RetrainConfig(sparsity=self.sparsities, candidates=self.candidates)


_SHARED = ("episodes", "iterations", "lanes", "sparsities", "candidates", "max_size", "threads")


def variant_of_search(name: str) -> str:
    """The name of a search without its seed, which tables carry after everything else."""
    return name.rpartition("-s")[0]


def _target(target: float) -> dict[str, Any]:
    return {"budget_mode": "target", "targets": (target,)}


def _shown(value: float) -> str:
    """All digits of it, so that two values never share a name, and no exponent, whose sign would cut the name."""
    return np.format_float_positional(value, trim="-")


def _nested(settings: tuple[str, ...]) -> dict[str, Any]:
    """`a.b=1` as {"a": {"b": 1}}; raises InputError for what has another form, or an option of its own."""
    taken = {*SweepConfig.model_fields, "backbone", "budget_mode", "memory_weight", "noise", "seed"}
    found: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        *sections, name = path.strip().replace("-", "_").split(".")
        if not equals or not name:
            raise InputError(
                f"--settings {setting!r} is not of the form KEY=VALUE; a setting of `ciess search`, such as "
                "agent.gamma=0, was expected. See `ciess search --help` for their names."
            )
        if [*sections, name][0] in taken or (sections, name) == (["short_fit"], "preset"):
            raise InputError(
                f"--settings {setting!r} sets what the sweep has an option for; a setting without one was expected. "
                "See --help for the options."
            )
        section_values = found
        try:
            for section in sections:
                section_values = section_values.setdefault(section, {})
            section_values[name] = yaml.safe_load(text)
        except (yaml.YAMLError, AttributeError, TypeError) as error:
            # What is no mapping has no settings of its own.
            reason = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else "another one sets all of it"
            raise InputError(
                f"--settings {setting!r} cannot be taken: {reason}. A value in YAML was expected, such as 0.5 or true, "
                "for a setting of its own. Correct the value, or leave one of the two out."
            ) from error
    return found


def _merged(values: dict[str, Any], further: dict[str, Any]) -> dict[str, Any]:
    both = [name for name in values.keys() & further.keys() if isinstance(further[name], dict)]
    return {**values, **further, **{name: {**values[name], **further[name]} for name in both}}
