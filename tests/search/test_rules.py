"""Where a search at budgets begins: found once, on the half that it sees, and kept."""

from pathlib import Path

import pytest

from ciess.config.search import SearchConfig
from ciess.data.planted import Planted
from ciess.search import rules as module
from ciess.search.rules import search_rules
from ciess.storage.storage import Storage
from ciess.training.starts.rule import Rule


def config(**more: object) -> SearchConfig:
    return SearchConfig(**{"sparsity": (0.5, 0.75), "max_size": 16, "device": "cpu", "threads": 1} | more)


def test_a_rule_a_budget_is_found_once_and_read_again(planted: Planted, tmp_path: Path, monkeypatch) -> None:
    run = Storage(tmp_path)
    found = search_rules(planted.data, config(), run)
    assert list(found) == [0.5, 0.75] and all(rule.start is not None and rule.judged for rule in found.values())

    def fail(*_: object, **__: object) -> Rule:
        pytest.fail("found again")

    monkeypatch.setattr(module, "tuned_rule", fail)
    assert search_rules(planted.data, config(), run) == found
    # Short fits that begin otherwise take its sizes alone.
    fresh = search_rules(planted.data, config(short_fit={"start": "fresh", "epochs": 2}), run)
    assert [rule.start for rule in fresh.values()] == [None, None]
    assert [rule.popularity for rule in fresh.values()] == [rule.popularity for rule in found.values()]


def test_it_is_judged_on_the_half_that_the_search_sees(planted: Planted, tmp_path: Path, monkeypatch) -> None:
    halves = []

    def spy(*arguments: object, **options: object) -> Rule:
        halves.append(options["by_half"])
        return Rule(0.5, 0.5)

    monkeypatch.setattr(module, "tuned_rule", spy)
    search_rules(planted.data, config(), Storage(tmp_path / "cut"))
    search_rules(planted.data, config(halves=False), Storage(tmp_path / "whole"))
    assert halves == [True, True, False, False]


def test_none_without_a_sparsity(planted: Planted, tmp_path: Path) -> None:
    run = Storage(tmp_path)
    assert search_rules(planted.data, SearchConfig(), run) == {}
    assert not run.exists("rules.json")
