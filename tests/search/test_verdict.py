"""What a search says it has added: paired differences, and words that do not promise more than they show."""

import numpy as np
import pytest

from ciess.config.search import SearchConfig
from ciess.masks.mask import PrefixMask
from ciess.search.candidates import Candidate
from ciess.search.verdict import Gain, Verdict, describe_verdict
from ciess.training.starts.start import Start

CONFIG = SearchConfig(sparsity=(0.95,))


def found(gain: Gain, origin: str = "search") -> Verdict:
    mask = PrefixMask(np.array([1, 2], np.int16), 16)
    best = Candidate(13, 1, 0, 0.95, 0.9, 0.9, 0.2, origin, mask, 0.19, Start("spectral", "items", 0.1, 0.25))
    return Verdict(0.95, best, 0.19, 0.18, 0.15, gain, Gain(0.04, 0.01))


def test_a_gain_is_a_paired_difference_with_its_interval() -> None:
    first, second = np.array([0.5, 0.3, 0.2], np.float32), np.array([0.4, 0.3, 0.3], np.float32)
    gain = Gain.of(first, second)
    assert gain.mean == pytest.approx(0.0, abs=1e-7) and gain.half == pytest.approx(1.96 * 0.1 / 3**0.5, rel=1e-5)
    assert not gain.shows and Gain(0.02, 0.01).shows and not Gain(0.01, 0.02).shows
    assert str(Gain(0.0123, 0.01)) == "+0.0123 [+0.0023, +0.0223]"


def test_what_was_gained_by_whom_and_who_judges() -> None:
    assert describe_verdict(found(Gain(0.01, 0.002)), CONFIG) == [
        "95 %: quality 0.1900 on the half of validation that it did not see; sized 0.1800, filled equal sizes 0.1500",
        "  gain over sized +0.0100 [+0.0080, +0.0120], over filled equal sizes +0.0400 [+0.0300, +0.0500] (95 %, user "
        "by user; the best of 300 masks by these pairs, so test is the judge)",
        "  won by episode 13, iteration 1, lane 0 of strategy kinds, start spectral (side items, exponent 0.1, power "
        "0.25), untrained",
    ]


@pytest.mark.parametrize("verdict", [found(Gain(0.001, 0.002)), found(Gain(0.0, 0.0), "sized")])
def test_where_nothing_was_gained_it_says_so(verdict: Verdict) -> None:
    assert describe_verdict(verdict, CONFIG)[2] == (
        "  the search adds nothing that shows: sized is handed over beside its masks"
    )
