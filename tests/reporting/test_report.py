import math
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from ciess.errors import RunDirectoryError
from ciess.reporting.report import NO_TESTS, describe_run, describe_tests, summary_table, write_report
from ciess.reporting.statistics import PairedTest
from ciess.storage.columns import PER_USER, RESULTS
from ciess.storage.storage import Storage


def rows(method, target, seed, recall, dataset="ml-1m", **columns):
    """Recall@20 as given, Recall@5 a quarter of it, NDCG twice as much, validation quality .3."""
    budget = "" if target is None else f"-c{100 * target:g}"
    common = {
        "method": method,
        "candidate": f"{method}{budget}-s{seed}",
        "backbone": "lightgcn",
        "dataset": dataset,
        "target_sparsity": target,
        "sparsity": 0.0 if target is None else 0.90625,
        "kept_parameters": 1_247_488 if target is None else 116_952,
        "seed": seed,
        "epochs": 40 + seed,
    } | columns
    cells = [("Recall", 5, recall / 4), ("Recall", 20, recall), ("NDCG", 5, recall * 2), ("NDCG", 20, recall * 1.8)]
    return [common | {"split": "test", "metric": m, "k": k, "value": v} for m, k, v in cells] + [
        common | {"split": "valid", "metric": "quality", "k": None, "value": 0.3}
    ]


def table(*parts):
    return pa.Table.from_pylist([row for part in parts for row in part], schema=RESULTS)


def users(*tables):
    """(method, target, seed, qualities)."""
    return pa.Table.from_pylist(
        [
            {
                "candidate": f"{method}-c{100 * target:g}-s{seed}" if target else f"{method}-s{seed}",
                "method": method,
                "target_sparsity": target,
                "seed": seed,
                "user": user,
                "quality": quality,
            }
            for method, target, seed, qualities in tables
            for user, quality in enumerate(qualities)
        ],
        schema=PER_USER,
    )


def cells(text):
    """Rows of cells of a summary table, by method and target."""
    lines = [line for line in text.splitlines() if line and "  " in line]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_one_seed_beside_the_paper():
    text = summary_table(table(rows("equal", 0.9, 0, 0.21), rows("full", None, 0, 0.25)))
    assert text.splitlines()[0] == "ml-1m, lightgcn"
    head, full, equal = cells(text)
    names = ["method", "target", "sparsity", "kept", "epochs", "seeds", "valid quality", "R@5", "R@20", "N@5", "N@20"]
    assert head == [*names, "paper R@20", "paper N@20"]
    assert full[:7] == ["full", "-", "0 %", "1,247,488", "40", "1", "0.3000"]
    assert full[7:] == ["0.0625", "0.2500", "0.5000", "0.4500", "-", "-"]
    assert equal[:7] == ["equal", "90 %", "90.625 %", "116,952", "40", "1", "0.3000"]
    assert equal[7:] == ["0.0525", "0.2100", "0.4200", "0.3780", "0.2105", "0.3787"]


def test_mean_and_deviation_over_seeds():
    parts = [rows("equal", 0.9, seed, recall) for seed, recall in enumerate((0.20, 0.21, 0.25))]
    row = cells(summary_table(table(*parts)))[1]
    deviation = math.sqrt((0.02**2 + 0.01**2 + 0.03**2) / 2)
    assert row[4:6] == ["40 to 42", "3"]
    assert row[6] == "0.3000 ±0.0000"
    assert row[8] == f"0.2200 ±{deviation:.4f}" == "0.2200 ±0.0265"


def test_without_a_paper_number_there_is_no_column_for_it():
    text = summary_table(table(rows("equal", 0.9, 0, 0.2, dataset="planted")))
    assert "paper" not in text
    assert "flags" not in text


def test_flags_name_their_seeds():
    parts = [
        rows("equal", 0.9, 0, 0.2),
        rows("equal", 0.9, 1, 0.2, flag="over budget"),
        rows("pep", 0.9, 0, 0.1, flag="forced"),
    ]
    head, equal, pep = cells(summary_table(table(*parts)))
    assert head[-1] == "flags"
    assert equal[-1] == "over budget (seed 1)"
    assert pep[-1] == "forced"


def test_seeds_for_which_different_masks_won():
    """Equal sizes with seed 0, beside which the best searched mask stands; a searched mask with seed 1."""
    parts = [
        rows("equal", 0.9, 0, 0.2),
        rows("ciess", 0.9, 0, 0.2, flag="equal sizes won"),
        rows("ciess", 0.9, 0, 0.1, candidate="ciess-c90-searched-s0", sparsity=0.95, kept_parameters=90_000),
        rows("ciess", 0.9, 1, 0.3, sparsity=0.925, kept_parameters=100_000),
    ]
    head, equal, ciess, searched = cells(summary_table(table(*parts)))
    assert (equal[0], ciess[0], searched[0]) == ("equal", "ciess", "ciess searched")
    assert ciess[2:6] == ["90.625 to 92.5 %", "100,000 to 116,952", "40 to 41", "2"]
    assert ciess[8] == "0.2500 ±0.0707"
    assert ciess[-1] == "equal sizes won (seed 0)"
    assert searched[2:6] == ["95 %", "90,000", "40", "1"]
    assert searched[8] == "0.1000"
    assert searched[-1] == "-"
    assert head[-1] == "flags"


def test_what_differs_between_seeds_is_a_range():
    parts = [rows("pep", 0.9, 0, 0.2), rows("pep", 0.9, 1, 0.2, sparsity=0.95, kept_parameters=90_000)]
    row = cells(summary_table(table(*parts)))[1]
    assert row[2:4] == ["90.625 to 95 %", "90,000 to 116,952"]


def test_a_value_that_some_seeds_lack_says_so():
    one_short = rows("equal", 0.9, 1, 0.2)[:-1]
    row = cells(summary_table(table(rows("equal", 0.9, 0, 0.2), one_short)))[1]
    assert row[6] == "0.3000 (1 of 2 seeds)"


def test_data_sets_have_tables_of_their_own():
    text = summary_table(table(rows("equal", 0.9, 0, 0.2), rows("equal", 0.9, 0, 0.2, dataset="planted")))
    assert [line for line in text.splitlines() if line.endswith(", lightgcn")] == [
        "ml-1m, lightgcn",
        "planted, lightgcn",
    ]


def paired(**columns):
    values = {
        "first": "equal",
        "second": "mixed",
        "target_sparsity": 0.9,
        "n_users": 6040,
        "seeds": (3, 3),
        "mean_difference": 0.0031,
        "low": 0.0011,
        "high": 0.0051,
        "effect_size": 0.12,
        "t_p": 5e-5,
        "wilcoxon_p": 0.01,
        "t_p_holm": 1e-4,
        "wilcoxon_p_holm": 0.02,
    }
    return PairedTest(**values | columns)


def test_lines_of_paired_tests():
    head, first, second, third = describe_tests(
        [
            paired(),
            paired(first="full", target_sparsity=None, t_p_holm=0.0, seeds=(1, 3)),
            paired(n_users=1, low=-math.inf, high=math.inf, effect_size=math.nan),
        ]
    )
    assert "Holm over 3 tests" in head
    assert first == "equal vs mixed at 90 %: +0.0031 [+0.0011, +0.0051] (d_z 0.12), p = 0.0001 after Holm, 6,040 users"
    assert second.startswith("full vs mixed: ")
    assert second.endswith("p < 1e-300 after Holm, 6,040 users, 1 and 3 seeds")
    assert "[unknown] (d_z nan)" in third
    assert describe_tests([]) == [NO_TESTS]


@pytest.fixture
def run(tmp_path):
    storage = Storage(tmp_path / "run")
    storage.write_table("results.parquet", table(rows("equal", 0.9, 0, 0.21), rows("mixed", 0.9, 0, 0.2)))
    quality = np.linspace(0.1, 0.5, 20)
    noise = np.where(np.arange(20) % 2, 0.02, 0.0)
    storage.write_table("per_user.parquet", users(("equal", 0.9, 0, quality), ("mixed", 0.9, 0, quality - noise)))
    storage.write_yaml("config.yaml", {"backbone": "lightgcn", "note": "<i>&"})
    storage.write_json("data.json", {"users": 6040, "name": "é"})
    storage.write_table("tables/equal-c90-s0/history.parquet", pa.table({"epoch": [1, 2], "quality": [0.1, 0.2]}))
    return storage


def test_a_run_described(run):
    text = describe_run(run)
    assert "equal vs mixed at 90 %: +0.0100 [" in text
    assert text.startswith("ml-1m, lightgcn\nmethod")
    run.delete("per_user.parquet")
    assert describe_run(run).endswith(NO_TESTS)


RETRAINED = [
    {"target_sparsity": 0.9, "seed": 1, "where": "equal sizes of 12", "short_quality_ratio": None, "selected": True},
    {"target_sparsity": 0.9, "seed": 0, "where": "episode 1, <b>", "short_quality_ratio": 0.25, "selected": False},
    {"target_sparsity": 0.8, "seed": 0, "where": "equal sizes of 25", "short_quality_ratio": None, "selected": True},
    {"target_sparsity": 0.9, "seed": 0, "where": "equal sizes of 12", "short_quality_ratio": None, "selected": True},
]


def test_masks_that_stood_for_choice(run):
    values = {"sparsity": 0.90625, "quality_ratio": 0.8125, "quality": 0.3, "epochs": 40}
    run.write_table("retrained.parquet", pa.Table.from_pylist([row | values for row in RETRAINED]))
    expected = [
        ["target", "seed", "mask", "sparsity", "short ratio", "ratio", "quality", "epochs"],
        ["80 %", "0", "equal sizes of 25", "90.625 %", "-", "0.8125", "0.3000", "40", "chosen"],
        ["90 %", "0", "episode 1, <b>", "90.625 %", "0.2500", "0.8125", "0.3000", "40"],
        ["90 %", "0", "equal sizes of 12", "90.625 %", "-", "0.8125", "0.3000", "40", "chosen"],
        ["90 %", "1", "equal sizes of 12", "90.625 %", "-", "0.8125", "0.3000", "40", "chosen"],
    ]
    lines = describe_run(run).split("\n\n")[2].splitlines()
    assert [cells(line)[0] for line in lines[:5]] == expected
    assert len({line.index("0.8125") for line in lines[1:5]}) == 1
    assert "(Eq. 16), the largest of a target and seed is chosen" in lines[5]
    write_report(run)
    report = page(run)
    shown = [word for word in report.words if word.strip()]
    first = shown.index("short ratio")
    assert shown[first - 4 : first + 4] == expected[0]
    assert "episode 1, <b>" in shown
    assert shown.count("chosen") == 3
    halves = [row | values | {"choice_quality": 0.15 + place / 100} for place, row in enumerate(RETRAINED)]
    run.write_table("retrained.parquet", pa.Table.from_pylist(halves))
    lines = describe_run(run).split("\n\n")[2].splitlines()
    assert [cells(line)[0][7] for line in lines[:5]] == ["chosen by", "0.1700", "0.1600", "0.1800", "0.1500"]
    assert "on the half of it that the search has not seen, the largest" in lines[5]
    run.write_table("retrained.parquet", pa.table({"where": ["x"]}))
    with pytest.raises(RunDirectoryError, match=r"retrained\.parquet lacks the columns target_sparsity, seed, "):
        describe_run(run)


def test_of_a_search_the_tests_are_those_against_equal_sizes(run):
    quality = np.linspace(0.1, 0.5, 20)
    noise = np.where(np.arange(20) % 2, 0.02, 0.0)
    tables = [("full", None, 0, quality + noise), ("mixed", 0.9, 0, quality - noise), ("ciess", 0.9, 0, quality)]
    run.write_table("per_user.parquet", users(*tables, ("equal", 0.9, 0, quality)))
    head, *lines = describe_run(run).split("\n\n")[2].splitlines()
    assert head.startswith("Against equal sizes; tables that are the same for every user are left out. Paired t tests")
    assert "Holm over 2 tests" in head
    assert [line.partition(": ")[0] for line in lines] == ["mixed vs equal at 90 %", "full vs equal at 90 %"]
    write_report(run)
    assert "ciess vs equal" not in "".join(page(run).words)
    run.write_table("per_user.parquet", users(*tables))
    assert "mixed vs ciess at 90 %: " in describe_run(run)


def test_of_a_search_beside_sizes_by_popularity_the_tests_are_those_against_them(run):
    quality = np.linspace(0.1, 0.5, 20)
    noise = np.where(np.arange(20) % 2, 0.02, 0.0)
    tables = [("equal", 0.9, 0, quality - noise), ("sized", 0.9, 0, quality), ("ciess", 0.9, 0, quality + noise)]
    run.write_table("per_user.parquet", users(*tables))
    head, *lines = describe_run(run).split("\n\n")[2].splitlines()
    assert head.startswith("Against sizes by popularity; tables that are the same for every user are left out. Paired")
    assert [line.partition(": ")[0] for line in lines] == ["equal vs sized at 90 %", "ciess vs sized at 90 %"]


class Page(HTMLParser):
    """Tags with their attributes, and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page(run):
    return Page(run.read_bytes("report.html").decode())


def test_the_page_holds_everything_and_loads_nothing(run):
    written = write_report(run)
    assert written == [run.path(name) for name in ("report.html", "figures/frontier.png", "figures/learning.png")]
    assert all(run.exists(path.removeprefix(run.root + "/")) for path in written)
    report = page(run)
    assert not report.open
    images = [attrs for tag, attrs in report.tags if tag == "img"]
    assert [image["alt"] for image in images] == ["frontier", "learning"]
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") for image in images)
    assert not {tag for tag, _ in report.tags} & {"script", "link", "iframe"}
    assert not any("href" in attrs for _, attrs in report.tags)
    text = "".join(report.words)
    for expected in (
        "ml-1m, lightgcn",
        "90.625 %",
        "0.2105",
        "equal vs mixed at 90 %",
        "+0.0100",
        "note: <i>&",
        '"name": "é"',
    ):
        assert expected in text


def test_parts_that_are_missing_are_named(run):
    for name in ("config.yaml", "data.json", "per_user.parquet", "tables"):
        run.delete(name)
    assert write_report(run) == [run.path("report.html"), run.path("figures/frontier.png")]
    text = "".join(page(run).words)
    assert "This run directory has no config.yaml." in text
    assert "This run directory has no data.json." in text
    assert NO_TESTS in text


def test_a_hostile_name_is_text(run):
    name = "<script>alert('$x^{')</script>"
    run.write_table("results.parquet", table(rows("equal", 0.9, 0, 0.2, dataset=name, flag="<b>bold</b>")))
    write_report(run)
    report = page(run)
    assert not {tag for tag, _ in report.tags} & {"script", "b"}
    text = "".join(report.words)
    assert f"{name}, lightgcn" in text
    assert "<b>bold</b>" in text


def test_a_report_is_the_same_twice(run):
    write_report(run)
    before = run.read_bytes("report.html")
    write_report(run)
    assert run.read_bytes("report.html") == before


def test_missing_results_are_an_error_and_nothing_is_written(tmp_path):
    storage = Storage(tmp_path / "nothing")
    for use in (write_report, describe_run):
        with pytest.raises(RunDirectoryError, match=r"nothing holds no results\.parquet; a run directory .* expected"):
            use(storage)
    assert not storage.exists()


def test_a_broken_data_file_is_an_error(run):
    run.write_bytes("data.json", b"{")
    with pytest.raises(RunDirectoryError, match=r"data\.json cannot be read as text .* that ciess wrote was expected"):
        write_report(run)
