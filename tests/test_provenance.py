import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from ciess import provenance
from ciess.models.graph import KERNELS, kernels


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder in a folder that is no git checkout, from which provenance seems to run."""
    folder = tmp_path / "project" / "ciess"
    folder.mkdir(parents=True)
    (folder / "provenance.py").write_text("# code\n")
    monkeypatch.setattr(provenance, "__file__", str(folder / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return folder


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *settings, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def test_versions_name_what_can_change_a_result() -> None:
    found = provenance.versions()
    assert found["python"] == platform.python_version()
    assert found["ciess"] == importlib.metadata.version("ciess")
    assert found["torch"] == torch.__version__
    assert found["ray"] == importlib.metadata.version("ray")


def test_a_package_that_is_not_there() -> None:
    assert provenance.package_version("no-such-package-of-anyone") == "not installed"


def test_there_is_no_revision_outside_a_checkout(package: Path) -> None:
    assert provenance.git_revision() == "none"


def test_there_is_no_revision_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_revision() == "none"


@needs_git
def test_revision_of_a_checkout_and_of_a_changed_one(package: Path) -> None:
    git(package.parent, "init")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-m", "first")
    commit = git(package.parent, "rev-parse", "HEAD")
    assert provenance.git_revision() == commit
    (package.parent / "notes.txt").write_text("beside the package")
    assert provenance.git_revision() == commit
    (package / "provenance.py").write_text("# other code\n")
    assert provenance.git_revision() == f"{commit}+changes"


@needs_git
def test_a_copy_in_the_checkout_of_something_else_has_no_revision(package: Path) -> None:
    (package.parent / "other.txt").write_text("what this checkout is about")
    (package.parent / ".gitignore").write_text("ciess/\n")
    git(package.parent, "init")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-m", "first")
    assert provenance.git_revision() == "none"


def test_machine() -> None:
    found = provenance.machine()
    assert found["cores"] == os.cpu_count()
    assert found["processor"]
    assert len(found["cuda_devices"]) == torch.cuda.device_count()


def test_kernels_are_those_that_propagation_uses() -> None:
    assert kernels() == {device: {"block": kernel.block} for device, kernel in KERNELS.items()}
    assert "cpu" in kernels()
