import math
import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ciess.errors import RunDirectoryError
from ciess.reporting.statistics import holm, paired_tests
from ciess.storage.columns import PER_USER


def per_user(tables, users=None):
    """tables: (method, target, seed) -> qualities, or with a name (method, target, seed, candidate)."""
    rows = []
    for (method, target, seed, *name), quality in tables.items():
        budget = "" if target is None else f"-c{100 * target:g}"
        candidate = name[0] if name else f"{method}{budget}-s{seed}"
        codes = (users or {}).get(candidate, range(len(quality)))
        rows += [
            {"candidate": candidate, "method": method, "target_sparsity": target, "seed": seed, "user": u, "quality": q}
            for u, q in zip(codes, quality, strict=True)
        ]
    return pa.Table.from_pylist(rows, schema=PER_USER)


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, then never falling: .02 .03 .06 .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_p_and_bonferroni_and_keeps_the_order(p_values):
    corrected = holm(p_values)
    for raw, value in zip(p_values, corrected, strict=True):
        assert raw <= value <= min(1, raw * len(p_values)) + 1e-12
    assert [value for _, value in sorted(zip(p_values, corrected, strict=True))] == sorted(corrected)


def test_paired_test_equals_scipy_on_the_mean_over_seeds():
    rng = np.random.default_rng(0)
    quality = {(m, 0.9, s): rng.random(40).astype(np.float32) for m in ("equal", "mixed") for s in (0, 1)}
    (test,) = paired_tests(per_user(quality))
    equal, mixed = (
        (quality[m, 0.9, 0].astype(np.float64) + quality[m, 0.9, 1].astype(np.float64)) / 2 for m in ("equal", "mixed")
    )
    difference = equal - mixed
    reference = stats.ttest_rel(equal, mixed)
    interval = reference.confidence_interval(0.95)
    assert (test.first, test.second, test.target_sparsity, test.n_users, test.seeds) == (
        "equal",
        "mixed",
        0.9,
        40,
        (2, 2),
    )
    assert test.mean_difference == pytest.approx(difference.mean())
    assert test.t_p == test.t_p_holm == pytest.approx(reference.pvalue)
    assert (test.low, test.high) == pytest.approx((interval.low, interval.high))
    assert test.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert test.wilcoxon_p == test.wilcoxon_p_holm == pytest.approx(stats.wilcoxon(equal, mixed).pvalue)


def test_users_are_paired_by_code_not_by_place():
    tables = {("equal", 0.9, 0): [0.1, 0.2, 0.3], ("mixed", 0.9, 0): [0.2, 0.1, 0.2]}
    (test,) = paired_tests(per_user(tables, users={"equal-c90-s0": [7, 8, 9], "mixed-c90-s0": [9, 7, 8]}))
    # 7: .1 - .1, 8: .2 - .2, 9: .3 - .2
    assert test.mean_difference == pytest.approx(0.1 / 3, rel=1e-6)


def test_the_family_is_pairs_at_one_target_and_full_against_each():
    rng = np.random.default_rng(1)
    keys = [("full", None), ("equal", 0.8), ("mixed", 0.8), ("equal", 0.9), ("mixed", 0.9), ("esapn", None)]
    keys.append(("optembed", None))  # sparsities that are outcomes are no common target
    tests = paired_tests(per_user({(m, t, 0): rng.random(30) for m, t in keys}))
    assert [(test.first, test.second, test.target_sparsity) for test in tests] == [
        ("full", "esapn", None),
        ("full", "optembed", None),
        ("equal", "mixed", 0.8),
        ("full", "equal", 0.8),
        ("full", "mixed", 0.8),
        ("equal", "mixed", 0.9),
        ("full", "equal", 0.9),
        ("full", "mixed", 0.9),
    ]
    assert [test.t_p_holm for test in tests] == holm([test.t_p for test in tests])
    assert [test.wilcoxon_p_holm for test in tests] == holm([test.wilcoxon_p for test in tests])


def test_a_reference_keeps_its_pairs_alone():
    rng = np.random.default_rng(1)
    table = per_user({(m, t, 0): rng.random(9) for m, t in (("full", None), ("equal", 0.9), ("mixed", 0.9))})
    tests = paired_tests(table, reference="mixed")
    assert [(test.first, test.second) for test in tests] == [("equal", "mixed"), ("full", "mixed")]
    with pytest.raises(RunDirectoryError, match="no table of method pep; its methods are: equal, full, mixed"):
        paired_tests(table, reference="pep")


def test_a_reference_stands_second_and_what_never_differs_from_it_is_left_out():
    """As where a search is no better than equal sizes and its table has these."""
    rng = np.random.default_rng(2)
    equal, other = rng.random(9), rng.random(9)
    almost = equal.copy()
    almost[4] /= 2
    tables = {
        ("full", None, 0): other,
        ("equal", 0.8, 0): equal,
        ("equal", 0.9, 0): equal,
        ("ciess", 0.8, 0): equal,
        ("ciess", 0.8, 0, "ciess-c80-searched-s0"): other,
        ("ciess", 0.9, 0): almost,
    }
    tests = paired_tests(per_user(tables), reference="equal")
    assert [(test.first, test.second, test.target_sparsity) for test in tests] == [
        ("ciess-searched", "equal", 0.8),
        ("full", "equal", 0.8),
        ("ciess", "equal", 0.9),
        ("full", "equal", 0.9),
    ]
    assert [test.mean_difference for test in tests] == pytest.approx(
        [(other - equal).mean(), (other - equal).mean(), -equal[4] / 18, (other - equal).mean()], rel=1e-5
    )
    assert [test.t_p_holm for test in tests] == holm([test.t_p for test in tests])


def test_a_reference_without_a_target():
    table = per_user({("full", None, 0): [0.1, 0.2, 0.4], ("equal", 0.9, 0): [0.1, 0.3, 0.6]})
    (test,) = paired_tests(table, reference="full")
    assert (test.first, test.second, test.target_sparsity) == ("equal", "full", 0.9)
    assert test.mean_difference == pytest.approx(0.1)


def test_no_difference_at_all_is_no_evidence():
    quality = [0.1, 0.5, 0.2, 0.9]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (test,) = paired_tests(per_user({("equal", 0.9, 0): quality, ("mixed", 0.9, 0): quality}))
    assert (test.t_p, test.wilcoxon_p, test.t_p_holm, test.wilcoxon_p_holm) == (1, 1, 1, 1)
    assert (test.mean_difference, test.low, test.high, test.effect_size) == (0, 0, 0, 0)


def test_the_same_difference_for_everyone_and_a_single_user():
    (test,) = paired_tests(per_user({("equal", 0.9, 0): [0.5] * 8, ("mixed", 0.9, 0): [0.25] * 8}))
    assert (test.mean_difference, test.low, test.high, test.t_p) == (0.25, 0.25, 0.25, 0)
    assert test.effect_size == math.inf
    (test,) = paired_tests(per_user({("equal", 0.9, 0): [0.5], ("mixed", 0.9, 0): [0.25]}))
    assert (test.mean_difference, test.low, test.high, test.t_p) == (0.25, -math.inf, math.inf, 1)
    assert math.isnan(test.effect_size)


@pytest.mark.parametrize("count", [2, 5, 12, 60])
def test_ties_and_zeros_do_not_warn(count):
    equal = np.arange(count) % 3 / 4
    mixed = np.arange(count) % 2 / 4
    (test,) = paired_tests(per_user({("equal", 0.9, 0): equal, ("mixed", 0.9, 0): mixed}))
    assert 0 <= test.wilcoxon_p <= 1


def test_variants_of_a_method_stay_apart():
    tables = {
        ("equal", 0.9, 0): [0.1, 0.2],
        ("equal", 0.9, 1): [0.1, 0.4],
        ("equal", 0.9, 0, "equal-c90-round-s0"): [0.5, 0.6],
    }
    (test,) = paired_tests(per_user(tables))
    assert (test.first, test.second, test.seeds) == ("equal", "equal-round", (2, 1))
    assert test.mean_difference == pytest.approx(0.2 - 0.55, rel=1e-6)


def test_no_rows_no_tests():
    assert paired_tests(PER_USER.empty_table()) == []


def test_different_users_are_an_error():
    tables = {("equal", 0.9, 0): [0.1, 0.2, 0.3], ("mixed", 0.9, 0): [0.2, 0.1]}
    with pytest.raises(RunDirectoryError) as error:
        paired_tests(per_user(tables, users={"mixed-c90-s0": [1, 5]}))
    assert str(error.value) == (
        "Tables equal-c90-s0 and mixed-c90-s0 were tested on different users (3 and 2, 1 of them the same); a paired "
        "test needs the same users. Fit both on the same data and split."
    )
    seeds = {("equal", 0.9, 0): [0.1, 0.2], ("equal", 0.9, 1): [0.2, 0.1]}
    with pytest.raises(RunDirectoryError, match="Tables equal-c90-s0 and equal-c90-s1 were tested on different users"):
        paired_tests(per_user(seeds, users={"equal-c90-s1": [0, 2]}))


def test_a_user_twice_or_no_number_is_an_error():
    with pytest.raises(RunDirectoryError, match="a user of table equal-c90-s0 twice; one row a table and user"):
        paired_tests(per_user({("equal", 0.9, 0): [0.1, 0.2]}, users={"equal-c90-s0": [3, 3]}))
    for bad in (math.nan, None):
        with pytest.raises(RunDirectoryError, match="holds 1 qualities that are not finite numbers; numbers in"):
            paired_tests(per_user({("equal", 0.9, 0): [0.1, bad]}))
