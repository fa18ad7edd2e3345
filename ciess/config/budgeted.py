"""What a search at given budgets sets that the paper's search does not, and what it refuses."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ciess.config.kinds import KindsConfig

if TYPE_CHECKING:
    from ciess.config.search import SearchConfig

LEARNS = {
    "scale": "log",
    "hidden": 64,
    "begin": "rule",
    "warm_up": 30,
    "gradient_steps": 10,
    "gamma": 0.0,
    "episodes_from": "best",
    "held_to_best": 1.0,
}
"""Settings of agents that differ from the paper's. Left to the critic alone they leave what is good once they learn
(MovieLens-1M, items, 99 %: mean quality of the first 50 fits .1290, of the last 50 .1013; held to the best mask .1338
and .1354, and the best mask .1381 instead of .1347)."""

NOISE = 3.0
"""Standard deviation of the gaussian noise around the best mask, in places."""

FITS = 300
"""Short fits a budget."""

CANDIDATES = 8
"""Masks a budget that stand for choice with sizes by rule."""

LOW_PRICE = 0.001
"""Memory weight that agents begin with: from 0.4 both run to the smallest size, and stay for a hundred fits."""

AGENTS = (
    "agent",
    "exploration",
    "noise",
    "shared_noise",
    "noise_place",
    "gaussian_sd",
    "ou_theta",
    "ou_dt",
    "ou_sd",
    "uniform_reach",
    "random_walk",
    "walk_length",
    "walk_reach",
    "walk_weights",
    "memory_weight_rate",
    "reward_quality",
)
"""Settings of strategy td3 alone."""


def with_settings_of_a_sparsity(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a search, completed by those that go with its sparsities; what is said goes first.

    Args:
        values: by name, as they were given.

    Returns:
        the settings.
    """
    found = values.get("sparsity")
    if found is None or (isinstance(found, Sequence) and not len(found)):
        return dict(values)
    sparsity = tuple(found) if isinstance(found, Sequence) and not isinstance(found, str) else (found,)
    if values.get("preset") == "paper":
        return {"sparsities": sparsity} | {name: value for name, value in values.items() if name != "sparsity"}
    strategy, fits = values.get("strategy", "kinds"), values.get("fits") or FITS
    budgets = len(dict.fromkeys(sparsity))
    if strategy == "td3" and not begins_with_kinds(values):
        iterations, lanes = values.get("iterations", 10), values.get("lanes", 1)
    else:
        kinds = values.get("kinds", {})
        population = kinds.get("population") if isinstance(kinds, Mapping) else kinds.population
        iterations, lanes = 1, population or KindsConfig.model_fields["population"].default
    shared: dict[str, Any] = {
        "strategy": strategy,
        "fits": fits,
        "budget_mode": "target",
        "targets": sparsity,
        "memory_weight": LOW_PRICE,
        "iterations": iterations,
        "lanes": lanes,
        "halves": True,
        "candidates": CANDIDATES,
    }
    if strategy == "td3":
        shared |= {"exploration": "kind", "gaussian_sd": NOISE}
        agent = values.get("agent", {})
        if isinstance(agent, Mapping):
            values = {**values, "agent": LEARNS | dict(agent)}
    if all(isinstance(number, int) and number > 0 for number in (fits, iterations, lanes)):
        shared["episodes"] = budgets * lanes * -(-fits // (iterations * lanes))
    if values.get("halves", True):
        shared["candidate_quality"] = "choice"
    short_fit = values.get("short_fit", {})
    if values.get("backbone") in ("ngcf", "ncf") and isinstance(short_fit, Mapping):
        shared["short_fit"] = {"start": "spectral", "epochs": 0}
    return (
        shared
        | {**values, "sparsity": sparsity}
        | ({"short_fit": {**shared["short_fit"], **short_fit}} if "short_fit" in shared else {})
    )


def begins_with_kinds(values: Mapping[str, Any]) -> bool:
    """Whether the agents of a search take over from strategy `kinds`, whose rounds are generations."""
    agent = values.get("agent", {})
    found = agent.get("begin") if isinstance(agent, Mapping) else getattr(agent, "begin", None)
    return bool(found == "kinds")


def sparsity_refused(config: "SearchConfig") -> str | None:
    """Why the settings of a search do not go together, None where they do."""
    if not config.sparsity:
        if config.strategy != "td3":
            return (
                f"strategy {config.strategy} searches at budgets, but found no sparsity; give --sparsity, such as 0.95"
            )
        if config.fits is not None:
            return (
                f"found fits {config.fits} without a sparsity; expected --episodes and --iterations there; give "
                "--sparsity, or leave --fits out"
            )
    elif config.budget_mode != "target" or config.targets != config.sparsity:
        return (
            f"sparsity {', '.join(map(str, config.sparsity))} is a budget for every fit, but found budget mode "
            f"{config.budget_mode} with targets {', '.join(map(str, config.targets)) or 'none'}; give one of the two"
        )
    elif config.memory_weight != LOW_PRICE:
        return (
            f"found memory weight {config.memory_weight} beside sparsity {', '.join(map(str, config.sparsity))}: a "
            "price is for a search without a budget; leave one of --memory-weight and --sparsity out"
        )
    if config.agent.begin == "kinds" and not config.sparsity:
        return "agents begin with kinds at a budget, but found no sparsity; give --sparsity, such as 0.95"
    if config.strategy == "td3" and config.agent.begin != "kinds":
        return None if config.kinds == KindsConfig() else _unused(config.strategy, ["kinds"], "kinds or random")
    if config.lanes != config.kinds.population or config.iterations != 1:
        return (
            f"found {config.lanes} lanes of {config.iterations} iterations with strategy {config.strategy}, whose "
            "rounds are generations; give --kinds.population and --fits instead"
        )
    if config.strategy == "td3":
        generations = -(-(config.fits or 0) // config.lanes)
        if 0 < config.kinds_generations < generations:
            return None
        return (
            f"found {config.kinds_generations} of {generations} generations for kinds before agents take over; "
            "expected one or more for each; give more --fits, or another --agent.kinds-share"
        )
    given = [name for name in AGENTS if getattr(config, name) != type(config).model_fields[name].default]
    return _unused(config.strategy, given, "td3") if given else None


def _unused(strategy: str, names: Sequence[str], others: str) -> str:
    options = ", ".join(f"--{name.replace('_', '-')}" for name in names)
    return f"found options of strategy {others}, but strategy {strategy}: {options}; leave them out"
