from collections.abc import Callable
from pathlib import Path

import pytest

from ciess.data import planted

Ciess = Callable[..., tuple[int, str, str]]


class TestOptions:
    @pytest.mark.parametrize("arguments", [[], ["fit"], ["fit", "planted"], ["recommend"], ["serve"]])
    def test_what_is_missing_or_unknown_is_asked_for(self, ciess: Ciess, arguments: list[str]) -> None:
        status, out, err = ciess(*arguments)
        assert (status, out) == (2, "")
        assert "Traceback" not in err
        assert "--help" in err

    def test_a_mistyped_option_gets_a_suggestion(
        self, ciess: Ciess, tmp_path: Path, boxed: Callable[[str], str]
    ) -> None:
        status, out, err = ciess("fit", "planted", "--out", tmp_path / "run", "--sparsty", "0.9")
        assert (status, out) == (2, "")
        text = boxed(err)
        assert "Unrecognized options: --sparsty" in text
        assert "Perhaps you meant: --sparsity" in text
        assert "Traceback" not in err
        assert not (tmp_path / "run").exists()

    def test_a_sparsity_for_methods_whose_sparsity_is_an_outcome(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        arguments = ("fit", "planted", "--out", tmp_path / "run", "--method", "esapn", "--sparsity", "0.9")
        assert refusal(*arguments) == (
            "The options are not valid. found --sparsity 0.9 for esapn, whose sparsity is an outcome and cannot be "
            "asked for; --sparsity gives the budgets of equal, mixed, sized and pep; leave it out, or name one of "
            "these methods, too, to compare with tables of that sparsity. See --help for what each option takes."
        )
        assert not (tmp_path / "run").exists()

    def test_without_a_sparsity_such_methods_need_none(self, ciess: Ciess, tmp_path: Path) -> None:
        """The default of --sparsity depends on the methods; here the sizes are what is refused."""
        status, _, err = ciess("fit", "planted", "--out", tmp_path / "run", "--method", "esapn", "--max-size", 16)
        assert (status, err) == (
            2,
            "ciess: The sizes of ESAPN are 2, 4, 8, 16, 64, 128, but max_size is 16, and no row has more columns than "
            "that. Give esapn.sizes of 2, 4, 8, 16, or a max_size of 128 or more.\n",
        )
        assert not (tmp_path / "run").exists()

    def test_thresholds_that_prune_before_any_training(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        arguments = ("fit", "planted", "--out", tmp_path / "run", "--method", "pep", "--pep.initial-threshold", 5)
        text = refusal(*arguments)
        assert text.startswith("Before any training the thresholds keep 0 of ")
        assert text.endswith("so that training decides. Lower pep.initial_threshold (5).")
        assert not (tmp_path / "run").exists()

    def test_sizes_that_do_not_ascend(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        text = refusal("fit", "planted", "--out", tmp_path / "run", "--method", "esapn", "--esapn.sizes", 4, 2)
        assert text.startswith("The options are not valid. --esapn.sizes: found ")
        assert "sizes must ascend without repeats, found 4, 2" in text

    @pytest.mark.parametrize(
        ("option", "expected"),
        [
            ("--backbone", "('lightgcn', 'ngcf', 'ncf', 'items')"),
            ("--method", "('full', 'equal', 'mixed', 'sized', 'pep', 'esapn', 'optembed')"),
        ],
    )
    def test_an_unknown_choice(
        self, ciess: Ciess, tmp_path: Path, option: str, expected: str, boxed: Callable[[str], str]
    ) -> None:
        status, out, err = ciess("fit", "planted", "--out", tmp_path / "run", option, "mf")
        assert (status, out) == (2, "")
        assert f"invalid choice 'mf' for argument '{option}'. Expected one of {expected}." in boxed(err)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("given", "text"),
        [
            (
                ["0.9", "1.5"],
                "--sparsity: found 1.5; Input should be less than 1; it is a share, such as 0.9 for 90 %.",
            ),
            (["1"], "--sparsity: found 1.0; Input should be less than 1; it is a share, such as 0.9 for 90 %."),
            (["0"], "--sparsity: found 0.0; Input should be greater than 0."),
            (["-0.5"], "--sparsity: found -0.5; Input should be greater than 0."),
            (["nan"], "--sparsity: found nan; Input should be less than 1; it is a share, such as 0.9 for 90 %."),
        ],
    )
    def test_a_sparsity_outside_0_and_1(
        self, refusal: Callable[..., str], tmp_path: Path, given: list[str], text: str
    ) -> None:
        assert refusal("fit", "planted", "--out", tmp_path / "run", "--sparsity", *given) == (
            f"The options are not valid. {text} See --help for what each option takes."
        )
        assert not (tmp_path / "run").exists()

    def test_an_unreachable_sparsity(self, refusal: Callable[..., str], tmp_path: Path) -> None:
        text = refusal(
            "fit", "planted", "--out", tmp_path / "run", "--max-size", "16", "--min-size", "1", "--sparsity", "0.99"
        )
        n = planted().data.n
        assert text == (
            f"A sparsity of 0.99 leaves {n * 16 // 100:,} parameters for {n:,} rows, but every row keeps at least 1 "
            "of its 16 dimensions. Choose a sparsity of at most 0.9375."
        )
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("option", "value"), [("--training.learning-rate", "-1"), ("--model.layers", "0"), ("--max-size", "0")]
    )
    def test_a_setting_out_of_its_range(
        self, ciess: Ciess, tmp_path: Path, option: str, value: str, boxed: Callable[[str], str]
    ) -> None:
        status, out, err = ciess("fit", "planted", "--out", tmp_path / "run", option, value)
        assert (status, out) == (2, "")
        assert option.rpartition(".")[2].lstrip("-").replace("-", "_") in err.replace("-", "_")
        assert "Input should be greater than" in boxed(err)
        assert "Traceback" not in err

    def test_rounds_of_a_bench(self, refusal: Callable[..., str]) -> None:
        assert refusal("bench", "planted", "--rounds", "0").startswith("rounds is 0, but")
