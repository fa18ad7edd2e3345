import subprocess
import sys
from collections.abc import Callable

import pytest

from ciess.config import recommender as config_module
from ciess.config.data import DataConfig
from ciess.config.fit import FitConfig

COMMANDS = ["data", "fit", "search", "retrain", "status", "figures", "recommend", "bench", "doctor"]
Ciess = Callable[..., tuple[int, str, str]]


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
