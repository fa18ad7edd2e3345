from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ciess.config.search import SearchConfig
from ciess.data.planted import Planted
from ciess.errors import FitError, InputError
from ciess.masks.mask import PrefixMask
from ciess.search.proposals import Proposal
from ciess.search.short_fit import outcome_of, short_fit, short_fit_request, starting_weights
from ciess.seeds import derive_seed
from ciess.training.fit import fit
from ciess.training.loop import FitRequest

Propose = Callable[..., Proposal]


def config(**changes: Any) -> SearchConfig:
    training = {"learning_rate": 0.01, "learning_rate_decay": 1.0, "batch_size": 500, "max_epochs": 7}
    plain: dict[str, Any] = {"max_size": 16, "device": "cpu", "threads": 1, "training": training, "seed": 3}
    return SearchConfig(
        **plain
        | {"short_fit": {"preset": "paper", "epochs": 2, "start": "fresh"} | changes.pop("short_fit", {})}
        | changes
    )


@pytest.fixture
def propose(planted: Planted) -> Propose:
    sizes = np.random.Generator(np.random.PCG64(1)).integers(1, 17, planted.data.n).astype(np.int16)

    def make(lane: int = 1, episode: int = 4, iteration: int = 2) -> Proposal:
        return Proposal(lane, episode, iteration, sizes)

    return make


class TestSeeds:
    def test_all_places_share_one(self, planted: Planted, propose: Propose) -> None:
        seeds = {
            short_fit_request(planted.data, config(), propose(*slot)).seed
            for slot in [(1, 4, 2), (0, 4, 2), (1, 5, 2), (1, 4, 3), (0, 0, 1)]
        }
        assert seeds == {derive_seed(3, "short fit")}

    def test_or_each_has_its_own(self, planted: Planted, propose: Propose) -> None:
        apart = config(short_fit={"shared_seed": False})
        places = [(1, 4, 2), (0, 4, 2), (1, 5, 2), (1, 4, 3), (0, 0, 1)]
        seeds = [short_fit_request(planted.data, apart, propose(*slot)).seed for slot in places]
        assert len(set(seeds)) == len(places)
        assert seeds == [short_fit_request(planted.data, apart, propose(*slot)).seed for slot in places]

    @pytest.mark.parametrize("shared", [True, False])
    def test_another_run_seed_gives_others(self, planted: Planted, propose: Propose, shared: bool) -> None:
        settings = [config(seed=seed, short_fit={"shared_seed": shared}) for seed in (3, 4)]
        first, second = (short_fit_request(planted.data, setting, propose()).seed for setting in settings)
        assert first != second

    def test_they_decide_the_outcome(self, planted: Planted, propose: Propose) -> None:
        def quality(shared: bool, *slot: int) -> bytes:
            settings = config(short_fit={"shared_seed": shared})
            return short_fit(planted.data, settings, propose(*slot)).quality.tobytes()

        assert quality(True, 0, 1, 1) == quality(True, 0, 1, 2)
        assert quality(False, 0, 1, 1) == quality(False, 0, 1, 1)
        assert quality(False, 0, 1, 1) != quality(False, 0, 1, 2)


class TestFit:
    def test_it_is_a_fit_of_these_sizes(self, planted: Planted, propose: Propose) -> None:
        own = {"learning_rate": 0.02, "learning_rate_decay": 0.5, "batch_size": 200, "decay": 0.0, "epochs": 3}
        settings = config(short_fit=own)
        proposal = propose()
        outcome = short_fit(planted.data, settings, proposal)
        training = settings.training.model_copy(
            update={"learning_rate": 0.02, "learning_rate_decay": 0.5, "batch_size": 200, "decay": 0.0}
        )
        by_hand = fit(
            planted.data,
            FitRequest(
                settings.recommender().model_copy(update={"training": training}),
                PrefixMask(proposal.sizes, 16),
                derive_seed(3, "short fit"),
                epochs=3,
            ),
        )
        assert by_hand.validation is not None
        np.testing.assert_array_equal(outcome.quality, by_hand.validation.quality())
        assert outcome.slot == (1, 4, 2)

    def test_full_training_gives_what_is_not_set(self, planted: Planted, propose: Propose) -> None:
        request = short_fit_request(planted.data, config(), propose())
        assert request.config.training == config().training
        assert (request.epochs, request.config.max_size, request.config.threads) == (2, 16, 1)

    def test_steps_are_counted_in_batches_of_its_own_size(self, planted: Planted, propose: Propose) -> None:
        pairs = len(planted.data.train)
        steps = -(-pairs // 100)
        for batches, epochs in [(1, 1), (steps, 1), (steps + 1, 2)]:
            short = {"epochs": None, "batches": batches, "batch_size": 100}
            assert short_fit_request(planted.data, config(short_fit=short), propose()).epochs == epochs

    def test_the_outcome_is_the_quality_of_equation_8(self, planted: Planted, propose: Propose) -> None:
        proposal = propose()
        result = fit(planted.data, short_fit_request(planted.data, config(), proposal))
        outcome = outcome_of(proposal, result)
        assert result.validation is not None
        assert len(result.validation.values) == 6
        expected = np.mean(list(result.validation.values.values()), axis=0)
        assert outcome.quality.dtype == np.float32
        assert outcome.quality.shape == (planted.data.n_users,)
        np.testing.assert_allclose(outcome.quality, expected, rtol=1e-5)
        assert 0 < outcome.quality.mean() < 1
        assert (outcome.fit_seconds, outcome.evaluation_seconds) == (result.fit_seconds, result.evaluation_seconds)

    def test_a_loss_that_is_not_finite(self, planted: Planted, propose: Propose) -> None:
        with pytest.raises(FitError, match="The loss is "):
            short_fit(planted.data, config(short_fit={"learning_rate": 1e30}), propose())


class TestStart:
    @pytest.mark.parametrize("backbone", ["lightgcn", "ncf"])
    def test_the_weights_of_the_reference_are_cut_to_size(
        self, planted: Planted, propose: Propose, backbone: str
    ) -> None:
        model: dict[str, Any] = {"hidden": (16, 8)} if backbone == "ncf" else {}
        # So small a rate that the weights stay what they are in float32.
        short = {"start": "reference", "epochs": 1, "learning_rate": 1e-30}
        settings = config(backbone=backbone, model=model, short_fit=short)
        full = FitRequest(settings.recommender(), PrefixMask(np.full(planted.data.n, 16, np.int16), 16), 0, epochs=1)
        trained = fit(planted.data, full)
        table = trained.table.reshape(planted.data.n, -1, 16)
        weights = {name: torch.from_numpy(value) for name, value in trained.weights.items()}
        weights["table"] = torch.from_numpy(table)
        proposal = propose()
        found = fit(planted.data, short_fit_request(planted.data, settings, proposal, weights))
        kept = np.arange(16) < proposal.sizes[:, None]
        np.testing.assert_array_equal(found.table.reshape(table.shape), table * kept[:, None, :])
        assert found.weights.keys() == trained.weights.keys()
        for name, value in trained.weights.items():
            np.testing.assert_array_equal(found.weights[name], value)

    def test_a_fresh_start_does_not_look_at_the_reference(self, planted: Planted, propose: Propose) -> None:
        weights = {"table": torch.zeros(planted.data.n, 1, 16)}
        first, second = (short_fit(planted.data, config(), propose(), given).quality for given in (weights, None))
        np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize("weights", [None, {}, {"tower": torch.zeros(1)}])
    def test_there_must_be_weights_to_start_from(self, planted: Planted, propose: Propose, weights: Any) -> None:
        with pytest.raises(InputError) as caught:
            short_fit(planted.data, config(short_fit={"start": "reference"}), propose(), weights)
        assert str(caught.value) == (
            "short_fit.start is 'reference', but no table to start from was given. Expected weights, `table` among "
            "them. Give what starting_weights makes of Reference.weights, or choose start 'fresh'."
        )


class TestStartingWeights:
    @pytest.fixture
    def weights(self) -> dict[str, torch.Tensor]:
        return {"table": torch.randn(50, 1, 16, generator=torch.Generator().manual_seed(0)), "other": torch.ones(3)}

    def test_a_fresh_start_has_none_and_the_references_are_as_they_are(self, weights: dict[str, torch.Tensor]) -> None:
        assert starting_weights(config(), weights) == {}
        assert starting_weights(config(short_fit={"start": "reference"}), weights) == weights

    def test_principal_axes_change_no_inner_product(self, weights: dict[str, torch.Tensor]) -> None:
        found = starting_weights(config(short_fit={"start": "principal"}), weights)
        before, after = weights["table"][:, 0], found["table"][:, 0]
        assert found["table"].shape == weights["table"].shape
        assert found["table"].dtype == torch.float32
        torch.testing.assert_close(after @ after.T, before @ before.T)
        assert found["other"] is weights["other"]

    def test_the_first_columns_are_the_best_approximation_of_their_rank(self, weights: dict[str, torch.Tensor]) -> None:
        before = weights["table"][:, 0]
        after = starting_weights(config(short_fit={"start": "principal"}), weights)["table"][:, 0]
        left, values, right = torch.linalg.svd(before, full_matrices=False)
        for rank in (1, 5, 15):
            best = left[:, :rank] * values[:rank] @ right[:rank]
            cut = after[:, :rank]
            torch.testing.assert_close(cut @ cut.T, best @ best.T, rtol=1e-4, atol=1e-4)

    def test_other_backbones_have_no_axes_to_turn(self) -> None:
        with pytest.raises(ValidationError) as caught:
            config(backbone="ncf", model={"hidden": (16, 8)}, short_fit={"start": "principal"})
        assert (
            "short fit start principal turns the table's axes, which only lightgcn's scores do not depend on; found "
            "backbone ncf; choose start fresh or reference"
        ) in str(caught.value)
