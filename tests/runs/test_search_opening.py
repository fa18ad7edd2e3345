"""What a search begins in and with: an old run, other data, a reference made before; what is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciess.config.search import SearchConfig
from ciess.data import Pairs
from ciess.data.planted import Planted
from ciess.data.planted import planted as make_planted
from ciess.errors import BudgetError, DataError, InputError, RunDirectoryError
from ciess.runs.search import run_search
from ciess.search.reference import train_reference
from ciess.storage.storage import Storage

Small = Callable[..., SearchConfig]
Call = Callable[..., Any]


class TestOpening:
    def test_an_existing_run_is_refused(
        self,
        planted: Planted,
        undisturbed: Callable[..., Path],
        references: list[int],
        small_search: Small,
        contents: Call,
        refusal: Call,
    ) -> None:
        out = undisturbed()
        references.clear()
        before = contents(out)
        assert refusal(RunDirectoryError, planted.data, out, small_search()) == (
            "OUT already holds a run. An empty or new folder was expected. Choose another --out, go on with that run "
            "by --resume, or delete it by --overwrite."
        )
        assert contents(out) == before
        assert references == []

    def test_overwrite_starts_anew(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        references: list[int],
        small_search: Small,
        assert_same_run: Call,
    ) -> None:
        undisturbed()
        references.clear()
        run_search(planted.data, small_search(seed=5), str(tmp_path / "run"))
        run_search(planted.data, small_search(), str(tmp_path / "run"), overwrite=True)
        assert references == [5, 0]
        assert_same_run(undisturbed(), tmp_path / "run", planted.data, small_search())

    def test_there_is_nothing_to_resume(
        self, planted: Planted, tmp_path: Path, small_search: Small, refusal: Call
    ) -> None:
        assert refusal(RunDirectoryError, planted.data, tmp_path / "run", small_search(), resume=True) == (
            "OUT holds no run to resume: there is no config.yaml of one. Check --out, or leave --resume out to start "
            "one."
        )
        assert not (tmp_path / "run").exists()

    def test_other_settings_are_named(
        self, planted: Planted, undisturbed: Callable[..., Path], small_search: Small, contents: Call, refusal: Call
    ) -> None:
        before = contents(undisturbed())
        other = small_search(episodes=4, memory_weight=0.2, lanes=1)
        assert refusal(RunDirectoryError, planted.data, undisturbed(), other, resume=True) == (
            "OUT was made with other settings: config.lanes was 2, now 1; config.memory_weight was 0.4, now 0.2. The "
            "same ones were expected (only episodes, fits may change). Give the old values, or choose another --out."
        )
        assert contents(undisturbed()) == before

    def test_other_data_is_told_by_its_checksum(
        self, planted: Planted, undisturbed: Callable[..., Path], small_search: Small, contents: Call, refusal: Call
    ) -> None:
        before = contents(undisturbed())
        other = make_planted(5, n_users=120, n_items=80, interactions_per_user=24).data
        assert refusal(RunDirectoryError, other, undisturbed(), small_search(), resume=True) == (
            f"OUT was made from data with sha256 {planted.data.sha256[:12]}, but the data given now has "
            f"{other.sha256[:12]}. Give the same file and reading options, or choose another --out."
        )
        assert contents(undisturbed()) == before

    @pytest.mark.parametrize(
        ("changes", "error", "text"),
        [
            ({"sparsities": (0.5, 0.999)}, BudgetError, "Choose a sparsity of at most 0.9375."),
            (
                {"lanes": 1, "budget_mode": "target", "targets": (0.999,)},
                BudgetError,
                "Choose a sparsity of at most 0.9375.",
            ),
            ({"device": "tpu"}, InputError, "The device is 'tpu'"),
        ],
    )
    def test_what_cannot_be_met_is_said_before_anything_is_trained_or_written(
        self,
        planted: Planted,
        tmp_path: Path,
        references: list[int],
        changes: dict[str, Any],
        error: type[InputError],
        text: str,
        small_search: Small,
        refusal: Call,
    ) -> None:
        assert text in refusal(error, planted.data, tmp_path / "run", small_search(**changes))
        assert not (tmp_path / "run").exists()
        assert references == []

    def test_data_without_validation_pairs(
        self, planted: Planted, tmp_path: Path, small_search: Small, refusal: Call
    ) -> None:
        data = dataclasses.replace(planted.data, valid=Pairs.none())
        assert refusal(DataError, data, tmp_path / "run", small_search()) == (
            "planted has 0 validation pairs, but one or more were expected. Give data with more interactions a user."
        )
        assert not (tmp_path / "run").exists()

    def test_what_is_refused_leaves_the_run_that_it_would_overwrite(
        self,
        planted: Planted,
        undisturbed: Callable[..., Path],
        tmp_path: Path,
        small_search: Small,
        contents: Call,
        refusal: Call,
    ) -> None:
        out = undisturbed()
        before = contents(out)
        refusal(BudgetError, planted.data, out, small_search(sparsities=(0.999,)), overwrite=True)
        refusal(
            RunDirectoryError,
            planted.data,
            out,
            small_search(),
            overwrite=True,
            reference_from=str(tmp_path / "nowhere"),
        )
        assert contents(out) == before


class TestReferenceFrom:
    @pytest.mark.parametrize("folder", ["", "reference"])
    def test_it_is_copied_and_nothing_is_trained(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        references: list[int],
        folder: str,
        small_search: Small,
        contents: Call,
        assert_same_run: Call,
    ) -> None:
        source = undisturbed()
        references.clear()
        run_search(planted.data, small_search(), str(tmp_path / "run"), reference_from=str(source / folder))
        assert references == []
        assert contents(tmp_path / "run" / "reference") == contents(source / "reference")
        assert_same_run(source, tmp_path / "run", planted.data, small_search())

    def test_a_bare_reference_will_do(
        self, planted: Planted, tmp_path: Path, references: list[int], small_search: Small
    ) -> None:
        train_reference(planted.data, small_search().recommender(), 0, Storage(tmp_path / "shared"))
        references.clear()
        for weight in (0.1, 0.2):
            out = str(tmp_path / str(weight))
            run_search(planted.data, small_search(memory_weight=weight), out, reference_from=str(tmp_path / "shared"))
        assert references == []

    @pytest.mark.parametrize("changes", [{"seed": 1}, {"max_size": 8}], ids=["seed", "settings"])
    def test_one_of_another_kind_is_refused(
        self,
        planted: Planted,
        tmp_path: Path,
        undisturbed: Callable[..., Path],
        changes: dict[str, Any],
        small_search: Small,
        refusal: Call,
    ) -> None:
        source = str(undisturbed())
        text = refusal(
            RunDirectoryError, planted.data, tmp_path / "run", small_search(**changes), reference_from=source
        )
        assert text.startswith(f"{source}/reference holds the reference of other data, backbone settings or seed ")
        assert not (tmp_path / "run").exists()

    def test_a_folder_without_one_is_refused(
        self, planted: Planted, tmp_path: Path, small_search: Small, refusal: Call
    ) -> None:
        source = str(tmp_path / "nowhere")
        assert refusal(RunDirectoryError, planted.data, tmp_path / "run", small_search(), reference_from=source) == (
            f"{source} holds no finished reference: neither it nor its folder reference has a metrics.json. Expected a "
            "run directory of `ciess search`. Check the path, or leave --reference-from out to train one."
        )
        assert not (tmp_path / "run").exists()

    def test_the_run_that_is_overwritten_may_lend_its_own(
        self, planted: Planted, tmp_path: Path, references: list[int], small_search: Small, contents: Call
    ) -> None:
        out = str(tmp_path / "run")
        run_search(planted.data, small_search(), out)
        before = contents(tmp_path / "run" / "reference")
        run_search(planted.data, small_search(memory_weight=0.1), out, overwrite=True, reference_from=out)
        assert references == [0]
        assert contents(tmp_path / "run" / "reference") == before
