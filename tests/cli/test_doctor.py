from typing import Any

import pytest
import torch

from ciess import provenance
from ciess.cli import doctor, main
from ciess.errors import CiessError
from ciess.models.graph import Graph


def broken() -> str:
    raise OSError("no space left")


def test_a_sound_installation_is_healthy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)  # whatever processor the tests run on
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    for package in ("python", "torch", "ray"):
        assert f"{package:<16} {provenance.versions()[package]}" in lines
    for name in doctor.CHECKS:
        assert f"{name:<32} ok" in lines


@pytest.mark.parametrize(("check", "outcome"), [(lambda: "it is broken", "it is broken"), (broken, "no space left")])
def test_a_failing_check_is_named_and_gives_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], check: Any, outcome: str
) -> None:
    monkeypatch.setitem(doctor.CHECKS, "the moon is up", check)
    with pytest.raises(SystemExit) as caught:
        main(["doctor"])
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    (line,) = [line for line in out.splitlines() if line.startswith("the moon is up")]
    assert line.endswith(outcome)
    assert "torch has MKL" in out
    assert err == "ciess: A check failed; see above what is wrong.\n"


def test_debug_shows_the_error_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.CHECKS, "the moon is up", lambda: "no")
    with pytest.raises(CiessError, match="A check failed"):
        main(["doctor", "--debug"])


def test_a_wrong_product_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Graph.multiply
    monkeypatch.setattr(Graph, "multiply", lambda self, x: right(self, x) * 1.01)
    text, healthy = doctor.doctor()
    assert not healthy
    assert "differs from the dense product by" in text


def test_a_missing_mkl_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    text, healthy = doctor.doctor()
    assert not healthy
    assert "torch has no MKL: propagation on the CPU will be slow" in text


def test_a_temporary_folder_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.Storage, "read_bytes", lambda self, name: b"other")
    text, healthy = doctor.doctor()
    assert not healthy
    assert "a file that was written reads back otherwise" in text
