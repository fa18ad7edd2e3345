import math

import pyarrow as pa
import pytest

from ciess.errors import RunDirectoryError
from ciess.reporting.summaries import estimate, read_per_user, read_results, summarise
from ciess.storage.columns import PER_USER, RESULTS
from ciess.storage.storage import Storage


def result(value, seed=0, method="equal", target=0.9, name=None, **columns):
    budget = "" if target is None else f"-c{100 * target:g}"
    return {
        "method": method,
        "candidate": name or f"{method}{budget}-s{seed}",
        "backbone": "lightgcn",
        "dataset": "ml-1m",
        "target_sparsity": target,
        "sparsity": 0.0 if target is None else 0.90625,
        "kept_parameters": 116_952,
        "split": "test",
        "metric": "Recall",
        "k": 20,
        "value": value,
        "seed": seed,
        "epochs": 40 + seed,
    } | columns


def results(rows):
    return pa.Table.from_pylist(rows, schema=RESULTS)


def test_mean_and_deviation_by_hand():
    three = estimate([0.1, 0.2, 0.4])
    assert three.mean == pytest.approx(0.7 / 3)
    assert three.sd == pytest.approx(math.sqrt((0.0177777778 + 0.0011111111 + 0.0277777778) / 2))
    assert (estimate([0.5]).mean, estimate([0.5]).sd, estimate([0.5]).count) == (0.5, None, 1)


def test_summaries_gather_seeds_and_sort():
    rows = [
        result(0.3, 1, "mixed", 0.9, kept_parameters=124_748, flag="forced"),
        result(0.1, 0, "mixed", 0.9, kept_parameters=124_747),
        result(0.21, 0, "equal", 0.9),
        result(0.25, 0, "equal", 0.8),
        result(0.3, 0, "full", None),
        result(0.2, 0, "equal", 0.9, split="valid", metric="quality", k=None),
    ]
    summaries = summarise(results(rows))
    assert [(s.label, s.target_sparsity) for s in summaries] == [
        ("full", None),
        ("equal", 0.8),
        ("equal", 0.9),
        ("mixed", 0.9),
    ]
    equal, mixed = summaries[2:]
    assert (mixed.seeds, mixed.epochs, mixed.kept_parameters) == ((0, 1), (40, 41), (124_747, 124_748))
    assert mixed.flags == (("forced", (1,)),)
    assert mixed.metrics["test", "Recall", 20].mean == pytest.approx(0.2)
    assert mixed.metrics["test", "Recall", 20].sd == pytest.approx(math.sqrt(0.02))
    assert equal.metrics["valid", "quality", None].mean == 0.2


def test_settings_that_differ_make_rows_of_their_own():
    rows = [
        result(0.20, 0, "ciess", memory_weight=0.2, noise="ou"),
        result(0.24, 1, "ciess", memory_weight=0.2, noise="ou"),
        result(0.21, 0, "ciess", memory_weight=0.4, noise="ou"),
        result(0.19, 0, "equal"),
        result(0.18, 0, "equal", name="equal-c90-round-s0"),
    ]
    assert [(s.label, s.seeds) for s in summarise(results(rows))] == [
        ("equal", (0,)),
        ("equal round", (0,)),
        ("ciess memory_weight=0.2", (0, 1)),
        ("ciess memory_weight=0.4", (0,)),
    ]


def test_a_value_twice_is_an_error():
    with pytest.raises(RunDirectoryError, match="holds test Recall@20 of equal-c90-s0 twice; one value a table"):
        summarise(results([result(0.1), result(0.2)]))


def test_results_that_are_missing_or_broken(tmp_path):
    storage = Storage(tmp_path)
    with pytest.raises(RunDirectoryError) as error:
        read_results(storage)
    assert str(error.value) == (
        f"{tmp_path} holds no results.parquet; a run directory with a finished table was expected. Check the path, or "
        "write one with `ciess fit DATA --out DIR`."
    )
    storage.write_bytes("results.parquet", b"not parquet")
    with pytest.raises(RunDirectoryError, match=r"results\.parquet is not a Parquet file that can be read"):
        read_results(storage)
    storage.write_table("results.parquet", RESULTS.empty_table().drop_columns(["flag", "k"]))
    with pytest.raises(
        RunDirectoryError, match=r"lacks the columns k, flag; the columns search_id, method, .* expected"
    ):
        read_results(storage)
    storage.write_table("results.parquet", RESULTS.empty_table())
    with pytest.raises(RunDirectoryError, match="has no rows, but a report needs at least one finished table"):
        read_results(storage)


def test_per_user_may_be_missing(tmp_path):
    assert read_per_user(Storage(tmp_path)) is None
    Storage(tmp_path).write_table("per_user.parquet", PER_USER.empty_table().drop_columns(["user"]))
    with pytest.raises(RunDirectoryError, match=r"per_user\.parquet lacks the columns user"):
        read_per_user(Storage(tmp_path))
