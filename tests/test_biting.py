"""The patches of tests are checked themselves."""

import time

import pytest
from biting import BitingPatch

from ciess.search import learner
from ciess.storage.storage import Storage


def test_a_patch_where_the_name_is_looked_up_passes() -> None:
    patch = BitingPatch()
    patch.setattr(learner, "choose", None)
    patch.setattr("ciess.search.learner.derive_seed", None)
    patch.undo()
    patch.check()


@pytest.mark.parametrize("name", ["Iterable", "policy"])
def test_a_patch_of_what_nothing_looks_up_fails(name: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=f"does not look {name} up"):
        BitingPatch().setattr(learner, name, None, raising=False)


def test_a_replaced_method_must_be_called() -> None:
    patch = BitingPatch()
    patch.setattr(Storage, "names", lambda self: ["a"])
    with pytest.raises(pytest.fail.Exception, match=r"never called: Storage\.names"):
        patch.check()
    assert Storage("nowhere").names() == ["a"]
    patch.check()
    patch.undo()


def test_a_replaced_function_of_another_package_must_be_called() -> None:
    patch = BitingPatch()
    patch.setattr("time.monotonic", lambda: 3.0)
    assert time.monotonic() == 3.0
    patch.undo()
    patch.check()


def test_what_is_there_to_fail_need_not_be_called() -> None:
    patch = BitingPatch()
    patch.setattr(Storage, "names", lambda self: pytest.fail("listed"))
    patch.undo()
    patch.check()
