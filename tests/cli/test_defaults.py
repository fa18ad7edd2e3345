from collections.abc import Callable
from typing import Any

import pytest

from ciess.config import recommender as config_module
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.runs import fit as run_module

Ciess = Callable[..., tuple[int, str, str]]


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
        self, ciess: Ciess, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, boxed: Callable[[str], str]
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
