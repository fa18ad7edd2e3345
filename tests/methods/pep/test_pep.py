import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ciess import masks
from ciess.config.fit import FitConfig
from ciess.config.models import WITHOUT_USERS
from ciess.data import Interactions
from ciess.data.planted import planted as make_planted
from ciess.errors import BudgetError
from ciess.masks.mask import SparseMask
from ciess.methods.journal import Journal, Row
from ciess.methods.pep.pep import pep
from ciess.models import BACKBONES
from ciess.seeds import derive_seed
from ciess.storage.storage import Storage
from ciess.tables.spec import TableSpec
from ciess.training.loop import build
from ciess.training.losses import bpr_loss
from ciess.training.prepared import prepare

HALF, MOST = Fraction(1, 2), Fraction(4, 5)


STEPS = 3
"""Steps an epoch of the planted data."""


every_backbone = pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in WITHOUT_USERS])


Config = Callable[..., FitConfig]


def dense(table: TableSpec) -> Any:
    assert isinstance(table.mask, SparseMask)
    return table.mask.dense()


def assert_same(found: Sequence[TableSpec], expected: Sequence[TableSpec]) -> None:
    """Equal bits of the masks, and all that is said of them."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(dense(one), dense(other))
        assert (one.name, one.seed, one.target_sparsity) == (other.name, other.seed, other.target_sparsity)
        assert (one.flag, one.search) == (other.flag, other.search)


def logit(threshold: float) -> float:
    return math.log(threshold / (1 - threshold))


class Stopped(Exception):
    """Stands for whatever ends a process."""


class TestTraining:
    """What is trained, and how."""

    @every_backbone
    def test_against_plain_autograd(self, data: Interactions, config: Config, backbone: str) -> None:
        """The published algorithm in a few lines: masks are those of the first check within the budget."""
        settings = config(backbone, model={"message_dropout": 0.0} if backbone == "ngcf" else None)
        own, seed = settings.pep, 5
        model, initial = build(data, settings.recommender(), seed)
        model.train()
        table = initial.flatten(1).requires_grad_()
        s = torch.full_like(table, own.initial_threshold).requires_grad_()
        groups: list[Any] = [
            {"params": [table, *model.parameters()]},
            {"params": [s], "weight_decay": own.threshold_decay},
        ]
        optimizer = torch.optim.Adam(groups, lr=own.learning_rate)
        prepared = prepare(data, torch.device("cpu"))
        kept: list[Any] = []
        for epoch in range(1, 21):
            triples = prepared.sampler.epoch(derive_seed(seed, "pep"), epoch, 500)
            for users, positives, negatives in zip(triples.users, triples.positives, triples.negatives, strict=True):
                pruned = table.sign() * torch.relu(table.abs() - own.threshold_scale * s.sigmoid())
                encoded = model.encode(pruned, prepared.graph(model.normalisation))
                loss = bpr_loss(model, pruned, encoded, users, positives, negatives, own.decay)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                kept.append((table.abs() > own.threshold_scale * s.sigmoid()).numpy())
        for found in pep(data, settings, [HALF, MOST], seed):
            assert found.target_sparsity is not None
            budget = masks.budget(data.n, 16, found.target_sparsity) * model.tables
            first = next(step for step in range(2, 61, 2) if kept[step - 1].sum() <= budget)
            assert found.search["steps"] == first
            assert first > 2
            # Sums in another order, which is up to the processor, move few entries over their threshold.
            assert (dense(found) != kept[first - 1]).mean() < 1e-2
            assert found.search["overshoot"] == budget - found.mask.kept
            assert found.flag is None

    def test_thresholds_rise_by_a_decay_that_adam_scales(self, data: Interactions, config: Config) -> None:
        """Where the loss has no hold on s, s climbs by Adam's formula for the gradient decay * s, not by AdamW's."""
        decay, rate, start = 1e-3, 0.05, -30.0
        settings = config(
            initial_threshold=start, threshold_scale=1.0, learning_rate=rate, threshold_decay=decay, max_steps=20
        )
        journal = Journal()
        pep(data, settings, [HALF], 0, journal)
        s, first, second = start, 0.0, 0.0
        path = []
        for step in range(1, 61):
            gradient = decay * s
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            s -= rate * first / (1 - 0.9**step) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
            path.append(s)
        assert [row["step"] for row in journal.rows] == list(range(STEPS, 61, STEPS))
        found = [logit(float(row["threshold"] or 0)) for row in journal.rows]
        np.testing.assert_allclose(found, path[STEPS - 1 :: STEPS], rtol=1e-4)
        decoupled = start * (1 - rate * decay) ** 60
        assert found[-1] - start > 2.9 > 0.1 > decoupled - start

    def test_without_decay_of_the_thresholds_nothing_is_pruned(self, data: Interactions, config: Config) -> None:
        """The loss alone gives thresholds that start low no reason to rise: the trap."""
        rows = {}
        for decay in (0.0, 1e-3):
            journal = Journal()
            settings = config(
                threshold_decay=decay, initial_threshold=-15.0, threshold_scale=1.0, decay=0.3, max_steps=25
            )
            pep(data, settings, [MOST], 0, journal)
            rows[decay] = {name: float(journal.rows[-1][name] or 0) for name in ("sparsity", "threshold")}
        assert rows[0.0]["sparsity"] == 0
        assert logit(rows[0.0]["threshold"]) == pytest.approx(-15, abs=0.5)
        assert rows[1e-3]["sparsity"] > 0.02
        assert rows[1e-3]["threshold"] > 1000 * rows[0.0]["threshold"]

    @pytest.mark.parametrize("granularity", ["global", "dimension", "feature", "feature_dim"])
    def test_every_granularity_meets_the_budget(self, data: Interactions, config: Config, granularity: str) -> None:
        (found,) = pep(data, config(granularity=granularity), [HALF], 0)
        assert found.flag is None
        assert HALF <= masks.sparsity(found.mask) < 0.7

    def test_the_tables_of_ncf_share_one_budget(self, data: Interactions, config: Config) -> None:
        (found,) = pep(data, config("ncf"), [HALF], 0)
        assert isinstance(found.mask, SparseMask)
        assert found.mask.tables == 2
        budget = 2 * masks.budget(data.n, 16, HALF)
        assert found.mask.kept == budget - found.search["overshoot"]
        assert 0.75 * budget < found.mask.kept <= budget
        kept = found.mask.dense().reshape(data.n, 2, 16).sum((0, 2))
        assert kept[0] != kept[1]
        assert (kept > 0).all()


def test_needy_rows_keep_more() -> None:
    """What needs many dimensions is pruned less, where a row's vector is its own: no graph lends it others'."""
    made = make_planted(2)
    config = FitConfig(
        backbone="ncf",
        max_size=16,
        threads=1,
        device="cpu",
        training={"batch_size": 2_000},
        pep={
            "initial_threshold": -13.0,
            "threshold_scale": 100.0,
            "learning_rate": 0.03,
            "threshold_decay": 1e-4,
            "decay": 1e-3,
            "check_every": 1,
        },
    )
    (found,) = pep(made.data, config, [MOST], 0)
    assert found.flag is None
    sizes, users = dense(found).sum(1), np.arange(made.data.n) < made.data.n_users
    for side in (users, ~users):
        assert sizes[side & made.needy].mean() > 1.1 * sizes[side & ~made.needy].mean()


class TestBudgets:
    def test_a_budget_does_not_feel_the_others(self, data: Interactions, config: Config) -> None:
        alone = [pep(data, config(), [c], 0)[0] for c in (HALF, MOST)]
        assert_same(pep(data, config(), [Fraction(7, 10), MOST, HALF, Fraction(1, 4)], 0)[1:3], alone[::-1])

    def test_two_budgets_may_meet_at_one_check(self, data: Interactions, config: Config) -> None:
        near = [HALF, HALF + Fraction(1, 1000)]
        first, second = pep(data, config(), near, 0)
        assert first.search["steps"] == second.search["steps"]
        np.testing.assert_array_equal(dense(first), dense(second))
        lost = masks.budget(data.n, 16, near[0]) - masks.budget(data.n, 16, near[1])
        assert first.search["overshoot"] - second.search["overshoot"] == lost > 0

    def test_what_is_not_met_is_forced_and_says_so(self, data: Interactions, config: Config, tmp_path: Path) -> None:
        """After three times max_steps, gamma tripled twice: the largest margins by brute force."""
        settings = config(threshold_decay=0.0, initial_threshold=-12.0, max_steps=STEPS)
        journal = Journal(Storage(tmp_path))
        tables = pep(data, settings, [HALF, MOST], 0, journal)
        state = Journal(Storage(tmp_path)).load()
        assert state is not None
        weight, logits = state[0]["embedding.weight"], state[0]["embedding.logits"]
        margins = (weight.abs() - 100 * logits.sigmoid()).flatten().tolist()
        in_order = sorted(range(len(margins)), key=lambda position: (-margins[position], position))
        for c, found in zip([HALF, MOST], tables, strict=True):
            budget = masks.budget(data.n, 16, c)
            assert sorted(np.flatnonzero(dense(found))) == sorted(in_order[:budget])
            assert found.flag == "forced"
            assert found.search == {"steps": 3 * STEPS, "overshoot": 0, "decay": pytest.approx(9e-2)}
        assert [row["step"] for row in journal.rows] == [STEPS, 2 * STEPS, 3 * STEPS]
        assert [row["decay"] for row in journal.rows] == pytest.approx([3e-2, 9e-2, 9e-2])
        assert [row["flag"] for row in journal.rows] == [None, None, "forced"]
        assert [row["budgets_met"] for row in journal.rows] == [0, 0, 0]

    def test_the_last_step_is_checked_before_masks_are_forced(self, data: Interactions, config: Config) -> None:
        """A budget met between two checks, at the very last step, is met."""
        (usual,) = pep(data, config(check_every=1, decay=0.0), [HALF], 0)
        third = -(-usual.search["steps"] // 3)
        (found,) = pep(data, config(check_every=1000, max_steps=third, decay=0.0), [HALF], 0)
        assert found.search["steps"] == 3 * third
        assert found.flag is None
        assert 0 < found.mask.kept <= usual.mask.kept

    def test_a_met_budget_stays_when_a_later_one_is_forced(self, data: Interactions, config: Config) -> None:
        (half,) = pep(data, config(), [HALF], 0)
        short = config(max_steps=half.search["steps"])  # gamma rises after the step that meets it
        found = pep(data, short, [Fraction(999, 1000) - Fraction(93, 1000), HALF], 0)
        assert_same(found[1:], [half])

    def test_budgets_that_no_mask_can_keep_are_refused(self, data: Interactions, config: Config) -> None:
        with pytest.raises(BudgetError, match="every row keeps at least 1 of its 16 dimensions"):
            pep(data, config(), [HALF, Fraction(99, 100)], 0)


class TestPurity:
    """The masks are a function of training data, settings and seed."""

    @every_backbone
    @pytest.mark.parametrize("epoch", [1, 7])
    def test_an_interrupted_search_ends_with_the_same_bits(
        self, data: Interactions, config: Config, tmp_path: Path, backbone: str, epoch: int
    ) -> None:
        undisturbed = Journal()
        settings = config(backbone, max_steps=10)  # gamma has risen by the second interruption
        expected = pep(data, settings, [Fraction(1, 4), MOST], 2, undisturbed)
        assert len(undisturbed.rows) > 8

        def stop(row: Row) -> None:
            if row["step"] == (epoch + 1) * STEPS:
                raise Stopped

        with pytest.raises(Stopped):
            pep(data, settings, [Fraction(1, 4), MOST], 2, Journal(Storage(tmp_path), "a", stop))
        resumed = Journal(Storage(tmp_path), "a")
        shown: list[Row] = []
        resumed.on_row = shown.append
        assert_same(pep(data, settings, [Fraction(1, 4), MOST], 2, resumed), expected)
        assert resumed.rows == undisturbed.rows
        assert shown == undisturbed.rows[epoch:]
        again = Journal(Storage(tmp_path), "a", lambda row: pytest.fail("trained once more"))
        assert_same(pep(data, settings, [Fraction(1, 4), MOST], 2, again), expected)
        assert again.rows == undisturbed.rows

    def test_a_further_budget_after_an_interruption_starts_anew(
        self, data: Interactions, config: Config, tmp_path: Path
    ) -> None:
        undisturbed, resumed = Journal(), Journal(Storage(tmp_path))
        pep(data, config(), [MOST], 2, Journal(Storage(tmp_path)))
        expected = pep(data, config(), [HALF, MOST], 2, undisturbed)
        assert_same(pep(data, config(), [HALF, MOST], 2, resumed), expected)
        assert resumed.rows == undisturbed.rows
        fewer = Journal(Storage(tmp_path), on_row=lambda row: pytest.fail("trained once more"))
        assert_same(pep(data, config(), [HALF], 2, fewer), expected[:1])

    def test_seed_and_training_data_decide(self, data: Interactions, config: Config) -> None:
        before = torch.get_rng_state()
        expected = pep(data, config(), [HALF], 0)
        other_parts = dataclasses.replace(data, valid=data.test, test=data.valid)
        assert_same(pep(other_parts, config(), [HALF], 0), expected)
        assert torch.equal(torch.get_rng_state(), before)
        (other,) = pep(data, config(), [HALF], 1)
        assert 0.1 < (dense(other) != dense(expected[0])).mean() < 0.9

    def test_training_starts_from_the_seed(self, data: Interactions, config: Config) -> None:
        """The lottery ticket: nothing but the seed is handed on."""
        (found,) = pep(data, config(), [HALF], 4)
        assert (found.name, found.seed, dict(found.initial)) == ("pep-c50-s4", 4, {})
