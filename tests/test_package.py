import subprocess
import sys

import pytest

import ciess


def in_a_new_process(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["ciess", "ciess.cli"])
def test_import_is_quick(module: str) -> None:
    in_a_new_process(f"import {module}, sys; assert 'ray' not in sys.modules and 'torch' not in sys.modules")


def test_no_command_needs_ray() -> None:
    in_a_new_process(
        "import sys; sys.modules['ray'] = None\n"
        "import ciess.run, ciess.bench, ciess.doctor, ciess.artifact, ciess.reference, ciess.recommending\n"
        "import ciess.search_run, ciess.retrain_run, ciess.status\n"
        "[getattr(ciess, name) for name in ciess.__all__]"
    )


@pytest.mark.parametrize("name", ciess.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ciess, name).__name__ == name
    assert getattr(ciess, name).__module__.startswith("ciess.")


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(AttributeError) as caught:
        ciess.Fitresult  # noqa: B018
    assert str(caught.value) == f"module 'ciess' has no attribute 'Fitresult'; it has {', '.join(ciess.__all__)}"
