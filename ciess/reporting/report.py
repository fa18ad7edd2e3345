"""What a run found, as text for the terminal and as one HTML page that needs nothing else."""

import base64
import json
import math
from collections.abc import Mapping, Sequence

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from ciess.errors import RunDirectoryError
from ciess.paper import published
from ciess.reporting.choices import MISSING, choice_legend, choice_rows, percent
from ciess.reporting.figures.results import draw
from ciess.reporting.figures.style import png, save_figures
from ciess.reporting.statistics import PairedTest, paired_tests
from ciess.reporting.summaries import Estimate, Summary, read_per_user, read_results, summarise
from ciess.storage.columns import FORCED
from ciess.storage.storage import Storage

COLUMNS = (
    "method",
    "target",
    "sparsity",
    "kept",
    "epochs",
    "seeds",
    "valid quality",
    "R@5",
    "R@20",
    "N@5",
    "N@20",
    "item rows",
    "in top 20",
    "sample",
    "start",
    "paper R@20",
    "paper N@20",
    "flags",
)
# Columns that are left away where no row has anything in them.
OPTIONAL_COLUMNS = {"item rows", "in top 20", "sample", "start", "paper R@20", "paper N@20", "flags"}
WORDS = ("method", "start", "flags", "mask", "")
"""Columns without numbers."""

LEGEND = (
    "R Recall, N NDCG, on test; valid quality: Eq. 8 on validation; sparsity: share of parameters removed; "
    "kept: parameters of the table; ± standard deviation over seeds."
)
COVERAGE_LEGEND = (
    " item rows: share of items that have a row of their own; in top 20: share of items that anyone ranked is "
    "recommended."
)
SAMPLE_LEGEND = (
    " sample: half the 95 % interval of test quality (Eq. 8), as a sample of the users was ranked; --evaluate-users 0 "
    "ranks all."
)
FORCED_LEGEND = " forced: training did not reach the budget, and the entries furthest above their thresholds were kept."
TESTS_LEGEND = (
    "Paired t tests over users, two-sided, on test quality (Eq. 8) averaged over seeds; difference with its 95 % "
    "interval, d_z = mean / standard deviation of the differences, p after Holm over {count} tests. "
    "They take the trained tables as given: compare with the deviation over seeds."
)
EQUAL_TESTS_LEGEND = "Against equal sizes; tables that are the same for every user are left out. "
SIZED_TESTS_LEGEND = "Against sizes by popularity; tables that are the same for every user are left out. "
NO_TESTS = "No paired tests: they need per_user.parquet with two methods at one target sparsity, or a full table."


def summary_table(results: pa.Table) -> str:
    """Rows of results.parquet as plain text, a line a method and target sparsity, for each data set and backbone.

    Means over seeds, with the sample standard deviation where there is more than one seed; the paper's numbers beside
    them where it has some.

    Raises:
        RunDirectoryError: a value is there twice.
    """
    blocks = []
    for (dataset, backbone), rows in _sections(results).items():
        blocks.append("\n".join([f"{dataset}, {backbone}", *aligned(rows)]))
    return "\n\n".join([*blocks, _legend(results)])


def _legend(results: pa.Table) -> str:
    forced = any(FORCED in (flag or "") for flag in results["flag"].to_pylist())
    metrics = set(results["metric"].to_pylist())
    further = [
        (COVERAGE_LEGEND, "Coverage" in metrics),
        (SAMPLE_LEGEND, "Interval" in metrics),
        (FORCED_LEGEND, forced),
    ]
    return LEGEND + "".join(legend for legend, needed in further if needed)


def describe_tests(tests: Sequence[PairedTest], about: str = "") -> list[str]:
    """A line a paired test, after a line that says what they are; one line where there are none.

    Args:
        tests: paired tests, in order.
        about: what else there is to say of these tests.
    """
    return [_tests_legend(tests, about), *(_test_line(test) for test in tests)]


def describe_run(storage: Storage) -> str:
    """The summary table of a run directory, the masks that stood for choice, and the paired tests, as plain text.

    Of a search only the tests against sizes by popularity are shown, where these were trained, or else those against
    equal sizes.

    Raises:
        RunDirectoryError: results.parquet is missing or a file cannot be used.
    """
    parts = [summary_table(read_results(storage))]
    if choices := choice_rows(storage):
        parts.append("\n".join([*aligned(choices), choice_legend(choices)]))
    return "\n\n".join([*parts, "\n".join(describe_tests(*_tests(storage)))])


def write_report(storage: Storage, further: Mapping[str, Figure] | None = None) -> list[str]:
    """Write report.html and its figures, also as files below figures/, and return the paths in the file system.

    The page shows results.parquet, retrained.parquet, per_user.parquet, the tables' histories, config.yaml and
    data.json, as far as they are there, and the `further` figures by name. It loads nothing from elsewhere. Raises
    RunDirectoryError where results.parquet is missing, or one of them cannot be used.
    """
    results, (tests, about) = read_results(storage), _tests(storage)
    pictures = {name: png(figure) for name, figure in {**draw(storage), **(further or {})}.items()}
    sections = _sections(results)
    environment = Environment(
        loader=PackageLoader("ciess.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html").render(
        title="; ".join(f"{dataset}, {backbone}" for dataset, backbone in sections),
        sections=sections,
        legend=_legend(results),
        tests=[_test_cells(test) for test in tests],
        tests_legend=_tests_legend(tests, about),
        choices=(choices := choice_rows(storage)),
        choices_legend=choice_legend(choices),
        pictures={name: base64.b64encode(picture).decode() for name, picture in pictures.items()},
        config=_text(storage, "config.yaml"),
        data=_text(storage, "data.json"),
    )
    storage.write_bytes("report.html", page.encode())
    return [storage.path("report.html"), *save_figures(storage, pictures)]


def _tests(storage: Storage) -> tuple[list[PairedTest], str]:
    """Paired tests, and what to say of them."""
    per_user = read_per_user(storage)
    if per_user is None:
        return [], ""
    methods = set(per_user["method"].to_pylist())
    if {"ciess", "sized"} <= methods:
        return paired_tests(per_user, reference="sized"), SIZED_TESTS_LEGEND
    if {"ciess", "equal"} <= methods:
        return paired_tests(per_user, reference="equal"), EQUAL_TESTS_LEGEND
    return paired_tests(per_user), ""


def _tests_legend(tests: Sequence[PairedTest], about: str) -> str:
    return about + (TESTS_LEGEND.format(count=len(tests)) if tests else NO_TESTS)


def aligned(rows: Sequence[Sequence[str]], left: Sequence[str] = WORDS) -> list[str]:
    """A line a row, numbers to the right; rows[0] is the header.

    Args:
        rows: cells of each row, as many in each.
        left: columns that are aligned to the left.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(rows[0], row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _sections(results: pa.Table) -> dict[tuple[str, str], list[list[str]]]:
    """Header and rows of cells by (data set, backbone)."""
    summaries: dict[tuple[str, str], list[Summary]] = {}
    for summary in summarise(results):
        summaries.setdefault((summary.dataset, summary.backbone), []).append(summary)
    sections = {}
    for group, members in summaries.items():
        rows = [dict(zip(COLUMNS, _cells(summary), strict=True)) for summary in members]
        columns = [
            name for name in COLUMNS if name not in OPTIONAL_COLUMNS or any(row[name] != MISSING for row in rows)
        ]
        sections[group] = [columns, *([row[name] for name in columns] for row in rows)]
    return sections


def _cells(summary: Summary) -> list[str]:
    count = len(summary.seeds)
    tested = [("Recall", 5), ("Recall", 20), ("NDCG", 5), ("NDCG", 20)]
    papers = [
        published(
            summary.dataset,
            summary.backbone,
            summary.method,
            summary.target_sparsity,
            metric,
            20,
            noise=summary.noise,
            random_walk=summary.random_walk,
        )
        for metric in ("Recall", "NDCG")
    ]
    return [
        summary.label,
        MISSING if summary.target_sparsity is None else percent(summary.target_sparsity),
        _range([percent(value) for value in sorted(summary.sparsities)]),
        _range([f"{value:,}" for value in sorted(summary.kept_parameters)]),
        _range([str(value) for value in sorted(summary.epochs)]),
        str(count),
        _estimate(summary.metrics.get(("valid", "quality", None)), count),
        *(_estimate(summary.metrics.get(("test", metric, k)), count) for metric, k in tested),
        _share(summary, ("test", "ItemRows", None)),
        _share(summary, ("test", "Coverage", 20)),
        _interval_of(summary),
        "/".join(summary.starts) or MISSING,
        *(MISSING if value is None else f"{value:.4f}" for value in papers),
        ", ".join(_flag(flag, seeds, count) for flag, seeds in summary.flags) or MISSING,
    ]


def _share(summary: Summary, metric: tuple[str, str, int | None]) -> str:
    """Mean over seeds of a share, in whole percent."""
    found = summary.metrics.get(metric)
    return MISSING if found is None else f"{100 * found.mean:.0f} %"


def _interval_of(summary: Summary) -> str:
    found = summary.metrics.get(("test", "Interval", None))
    return MISSING if found is None else f"±{found.mean:.4f}"


def _range(values: list[str]) -> str:
    return values[0] if values[0] == values[-1] else f"{values[0].removesuffix(' %')} to {values[-1]}"


def _estimate(estimate: Estimate | None, seeds: int) -> str:
    if estimate is None:
        return MISSING
    spread = "" if estimate.sd is None else f" ±{estimate.sd:.4f}"
    return f"{estimate.mean:.4f}{spread}" + ("" if estimate.count == seeds else f" ({estimate.count} of {seeds} seeds)")


def _flag(flag: str, seeds: tuple[int, ...], count: int) -> str:
    return flag if len(seeds) == count else f"{flag} (seed {', '.join(map(str, seeds))})"


def _p(value: float) -> str:
    return "p < 1e-300" if value < 1e-300 else f"p = {value:.2g}"


def _pair(test: PairedTest) -> str:
    at = "" if test.target_sparsity is None else f" at {percent(test.target_sparsity)}"
    return f"{test.first} vs {test.second}{at}"


def _interval(test: PairedTest) -> str:
    return f"[{test.low:+.4f}, {test.high:+.4f}]" if math.isfinite(test.low) else "[unknown]"


def _users(test: PairedTest) -> str:
    """Users, and seeds where the two sides do not have the same number."""
    first, second = test.seeds
    return f"{test.n_users:,} users" + ("" if first == second else f", {first} and {second} seeds")


def _test_line(test: PairedTest) -> str:
    return (
        f"{_pair(test)}: {test.mean_difference:+.4f} {_interval(test)} (d_z {test.effect_size:.2f}), "
        f"{_p(test.t_p_holm)} after Holm, {_users(test)}"
    )


def _test_cells(test: PairedTest) -> list[str]:
    return [
        _pair(test),
        f"{test.mean_difference:+.4f}",
        _interval(test),
        f"{test.effect_size:.2f}",
        _p(test.t_p_holm),
        _p(test.wilcoxon_p_holm),
        _users(test),
    ]


def _text(storage: Storage, name: str) -> str | None:
    """A text file of the run for reading, None where there is none; JSON indented."""
    if not storage.exists(name):
        return None
    try:
        text = storage.read_bytes(name).decode()
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False) if name.endswith(".json") else text
    except ValueError as error:
        raise RunDirectoryError(
            f"{storage.path(name)} cannot be read as text ({error}); the {name} that ciess wrote was expected. "
            "Restore the file, or run again with --overwrite."
        ) from error
