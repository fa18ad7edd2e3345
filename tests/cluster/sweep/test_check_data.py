"""What a sweep refuses of its data before Ray does anything."""

import dataclasses

import numpy as np
import pytest

from ciess.cluster.sweep.config import SweepConfig
from ciess.cluster.sweep.sweep import _check_data
from ciess.data import Pairs
from ciess.data.planted import Planted
from ciess.errors import DataError


def test_validation_that_its_searches_could_not_cut_in_two(planted: Planted) -> None:
    users = np.arange(30, dtype=np.int32)
    single = dataclasses.replace(planted.data, valid=Pairs(users, np.zeros(30, np.int32)))
    halved = SweepConfig(memory_weights=(), strategies=("kinds",), sparsities=(0.5,), max_size=16)
    with pytest.raises(DataError) as raised:
        _check_data(single, halved)
    assert str(raised.value) == (
        "Of 30 users with validation items 30 have one only, so that validation is too small to be cut in two. "
        "Expected 2 items or more for most users, or 200 users. Give data with more interactions, or search and choose "
        "on all of it by --settings halves=false."
    )
    _check_data(single, halved.model_copy(update={"settings": ("halves=false",)}))
