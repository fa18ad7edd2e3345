"""Runs that an earlier version began: their settings mean what they meant."""

import json

from ciess.config.earlier import AGENT, BEFORE, SEARCH, TRAINING, completed, unnamed
from ciess.config.fit import FitConfig
from ciess.config.search import SearchConfig

OLD = {"min_size": 1, "start": "fresh", "evaluate_users": 0}


def as_then(config: FitConfig | SearchConfig) -> dict[str, object]:
    """Settings as ciess 0.1.0 wrote them."""
    found = config.model_dump(mode="json")
    found["training"] = {name: value for name, value in found["training"].items() if name not in TRAINING}
    if "agent" in found:
        found["agent"] = {name: value for name, value in found["agent"].items() if name not in AGENT}
    later = {*BEFORE, *(SEARCH if isinstance(config, SearchConfig) else ())}
    return {name: value for name, value in found.items() if name not in later}


def test_settings_of_then_are_those_of_now_that_do_the_same() -> None:
    for config in (FitConfig(**OLD), SearchConfig(**OLD)):
        assert completed(as_then(config)) == config.model_dump(mode="json")


def test_what_is_named_stays() -> None:
    config = SearchConfig(min_size=0, start="spectral", training={"loss": "softmax"})
    assert completed(config.model_dump(mode="json")) == config.model_dump(mode="json")


def test_settings_of_a_sweep_are_left_alone() -> None:
    assert completed({"episodes": 3}) == {"episodes": 3}


def test_a_fingerprint_leaves_out_what_is_as_it_was_and_nothing_else() -> None:
    old = SearchConfig(**OLD)
    assert json.loads(old.model_dump_json(exclude=unnamed(old))) == as_then(old)
    new = SearchConfig()
    named = json.loads(new.model_dump_json(exclude=unnamed(new)))
    assert {"min_size", "start", "evaluate_users"} <= named.keys()
    other = SearchConfig(**OLD, training={"loss": "squared"})
    assert json.loads(other.model_dump_json(exclude=unnamed(other)))["training"]["loss"] == "squared"


def test_a_fits_identity_holds_what_changes_it() -> None:
    plain = FitConfig(**OLD).recommender()
    assert not set(TRAINING) & json.loads(plain.identity())["training"].keys()
    assert "min_size" not in json.loads(plain.identity())
    for changes in ({"training": {"loss": "softmax"}}, {"training": {"relative_rate": True}}, {"evaluate_users": 7}):
        assert FitConfig(**{**OLD, **changes}).recommender().identity() != plain.identity()
