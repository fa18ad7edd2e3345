import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ciess
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions, Pairs
from ciess.data.planted import planted as make_planted
from ciess.errors import DataError, FitError
from ciess.evaluation.metrics import evaluate
from ciess.evaluation.ranking import PairLookup
from ciess.masks.mask import PrefixMask, SparseMask
from ciess.masks.sizes import equal, full, mixed
from ciess.models import BACKBONES
from ciess.training import prepared as prepared_module
from ciess.training.fit import FitResult, fit
from ciess.training.loop import FitRequest

CPU = torch.device("cpu")
Config = Callable[..., RecommenderConfig]
every_backbone = pytest.mark.parametrize("backbone", BACKBONES)


def quality_of(result: FitResult, data: Interactions) -> float:
    """Validation mean of Eq. 8, ranked anew."""
    lookups = [PairLookup(pairs, data.n_users, data.n_items, CPU) for pairs in (data.train, data.valid)]
    return evaluate(result.recommender.score_users, lookups[:1], lookups[1]).mean_quality()


class TestPurity:
    """A fit is a function of data and request."""

    SCRIPT = """
import hashlib, json, warnings
from ciess.config import RecommenderConfig
from ciess.data import planted
from ciess.masks import mixed
from ciess.models import BACKBONES
from ciess.training.fit import fit
from ciess.training.loop import FitRequest

data, digests = planted(3, n_users=300, n_items=200, interactions_per_user=50).data, {}
for backbone in BACKBONES:
    config = RecommenderConfig(backbone=backbone, training={"batch_size": 9000}, device="cpu", threads=2)
    result = fit(data, FitRequest(config, mixed(data.n, 128, 0.5, seed=0), seed=7, epochs=2))
    digest = hashlib.sha256(result.table.tobytes())
    for name in sorted(result.weights):
        digest.update(result.weights[name].tobytes())
    digest.update(result.recommender.encoded.numpy().tobytes())
    digest.update(result.validation.quality().tobytes())
    digests[backbone] = digest.hexdigest()
print(json.dumps(digests))
"""

    def test_two_processes_with_two_threads_give_equal_bits_whatever_their_environment(self) -> None:
        path = os.pathsep.join([str(Path(ciess.__path__[0]).parent), os.environ.get("PYTHONPATH", "")])
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", self.SCRIPT],
                env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads},
                stdout=subprocess.PIPE,
                text=True,
            )
            for hash_seed, threads in (("1", "1"), ("2", "4"))
        ]
        first, second = (json.loads(process.communicate()[0]) for process in processes)
        assert set(first) == set(BACKBONES)
        assert first == second

    @every_backbone
    def test_other_fits_in_between_change_nothing(
        self, backbone: str, data: Interactions, small_config: Config, assert_same: Callable[..., None]
    ) -> None:
        model = {"node_dropout": 0.2} if backbone == "ngcf" else {}
        request = FitRequest(small_config(backbone, model=model), mixed(data.n, 16, 0.5, seed=0), seed=1, epochs=3)
        first = fit(data, request)
        torch.rand(5)
        other = FitRequest(small_config("ngcf", sampling="interaction"), full(data.n, 16), seed=2, epochs=1)
        fit(data, other)
        fit(data.merged(), dataclasses.replace(request, evaluate=False))
        assert_same(fit(data, request), first)

    @every_backbone
    def test_a_result_stays_as_it_is_when_others_are_trained(
        self, backbone: str, data: Interactions, small_config: Config
    ) -> None:
        request = FitRequest(small_config(backbone), full(data.n, 16), seed=1, epochs=1)
        result = fit(data, request)
        table, scores = result.table.copy(), result.recommender.score_users(torch.arange(9))
        fit(data, dataclasses.replace(request, seed=2))
        np.testing.assert_array_equal(result.table, table)
        assert result.recommender.score_users(torch.arange(9)).equal(scores)

    @every_backbone
    def test_the_global_generators_and_the_thread_count_are_left_alone(
        self, backbone: str, data: Interactions, small_config: Config
    ) -> None:
        before, numpy_before, threads = torch.get_rng_state(), np.random.get_state()[1], torch.get_num_threads()  # noqa: NPY002
        fit(data, FitRequest(small_config(backbone, threads=threads + 1), full(data.n, 16), seed=1, epochs=1))
        assert torch.get_rng_state().equal(before)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
        assert torch.get_num_threads() == threads

    def test_the_thread_count_of_the_config_holds_during_the_fit(self, tiny: Interactions, small_config) -> None:
        seen: list[int] = []
        config = small_config(threads=3)
        request = FitRequest(
            config, full(tiny.n, 16), seed=0, epochs=1, on_epoch=lambda _: seen.append(torch.get_num_threads())
        )
        fit(tiny, request)
        assert seen == [3]

    @every_backbone
    def test_another_seed_gives_another_table(self, backbone: str, data: Interactions, small_config: Config) -> None:
        request = FitRequest(small_config(backbone), full(data.n, 16), seed=1, epochs=1)
        assert (fit(data, request).table != fit(data, dataclasses.replace(request, seed=2)).table).mean() > 0.99


class TestShort:
    """Training for a given number of epochs."""

    @pytest.mark.parametrize(("evaluated", "calls"), [(True, 1), (False, 0)])
    def test_it_is_evaluated_once_or_not_at_all(self, tiny: Interactions, small_config, monkeypatch, evaluated, calls):
        count = 0

        def counting(*arguments, **options):
            nonlocal count
            count += 1
            return evaluate(*arguments, **options)

        monkeypatch.setattr(prepared_module, "evaluate", counting)
        request = FitRequest(small_config(), full(tiny.n, 16), seed=0, epochs=12, evaluate=evaluated)
        result = fit(tiny, request)
        assert count == calls
        assert (result.validation is not None) == evaluated
        assert (result.epochs, result.best_epoch) == (12, 12)
        assert [record.quality for record in result.history] == [None] * 12

    @every_backbone
    def test_validation_is_that_of_the_returned_weights(
        self, backbone: str, data: Interactions, small_config: Config
    ) -> None:
        result = fit(data, FitRequest(small_config(backbone), equal(data.n, 16, 0.5), seed=0, epochs=2))
        assert result.validation.mean_quality() == quality_of(result, data)

    def test_data_without_validation_can_be_trained_on_for_a_number_of_epochs(
        self, data: Interactions, small_config: Config
    ) -> None:
        result = fit(data.merged(), FitRequest(small_config(), full(data.n, 16), seed=0, epochs=2, evaluate=False))
        assert result.epochs == 2

    @every_backbone
    def test_every_epoch_is_reported_as_it_ends(self, backbone: str, tiny: Interactions, small_config: Config) -> None:
        records: list[object] = []
        request = FitRequest(small_config(backbone), full(tiny.n, 16), seed=0, epochs=3, on_epoch=records.append)
        history = fit(tiny, request).history
        assert tuple(records) == history
        assert [record.epoch for record in history] == [1, 2, 3]

    def test_epochs_go_on_from_each_other(self, data: Interactions, small_config: Config) -> None:
        short, long = (
            fit(data, FitRequest(small_config(), full(data.n, 16), seed=0, epochs=epochs, evaluate=False)).history
            for epochs in (2, 4)
        )
        assert long[:2] == short

    def test_interaction_sampling_is_another_training(self, data: Interactions, small_config: Config) -> None:
        tables = [
            fit(data, FitRequest(small_config(sampling=sampling), full(data.n, 16), seed=0, epochs=1)).table
            for sampling in ("user", "interaction")
        ]
        assert (tables[0] != tables[1]).any()


@pytest.fixture(scope="module")
def overfitting(small_config: Config) -> RecommenderConfig:
    return small_config(learning_rate=0.1, decay=1e-5, evaluate_every=2, patience=3, max_epochs=200)


@pytest.fixture(scope="module")
def result(data: Interactions, overfitting: RecommenderConfig) -> FitResult:
    """A full training that patience ends."""
    return fit(data, FitRequest(overfitting, full(data.n, 16), seed=0))


class TestFull:
    """Training until validation stops to improve."""

    def test_it_stops_when_patience_is_used_up(self, result: FitResult) -> None:
        assert result.epochs == result.best_epoch + 3 * 2 < 200
        assert [record.epoch for record in result.history] == list(range(result.epochs + 1))
        evaluated = [record.epoch for record in result.history if record.quality is not None]
        assert evaluated == list(range(0, result.epochs + 1, 2))

    def test_the_best_epoch_is_the_first_of_highest_quality(self, result: FitResult) -> None:
        qualities = {record.epoch: record.quality for record in result.history if record.quality is not None}
        assert result.best_epoch == max(qualities, key=lambda epoch: (qualities[epoch], -epoch))
        assert result.best_epoch < result.epochs

    def test_the_weights_are_those_of_the_best_epoch(
        self, result: FitResult, data: Interactions, overfitting: RecommenderConfig
    ) -> None:
        best = max(record.quality for record in result.history if record.quality is not None)
        assert result.validation.mean_quality() == quality_of(result, data) == best
        short = fit(data, FitRequest(overfitting, full(data.n, 16), seed=0, epochs=result.best_epoch))
        np.testing.assert_array_equal(result.table, short.table)
        assert result.recommender.encoded.equal(short.recommender.encoded)

    def test_it_ends_at_max_epochs_and_evaluates_there(self, data: Interactions, small_config: Config) -> None:
        config = small_config(evaluate_every=4, max_epochs=6)
        result = fit(data, FitRequest(config, full(data.n, 16), seed=0))
        assert result.epochs == 6
        assert [record.epoch for record in result.history if record.quality is not None] == [0, 4, 6]

    def test_data_without_validation_are_refused(self, data: Interactions, small_config: Config) -> None:
        with pytest.raises(DataError, match=r"has 0 validation pairs, but one or more were expected"):
            fit(data.merged(), FitRequest(small_config(), full(data.n, 16), seed=0))


class TestBreakdown:
    """A loss that is no number ends the training."""

    def test_the_error_names_epoch_rate_and_seed(self, data: Interactions, small_config: Config) -> None:
        config = small_config(learning_rate=1e30, batch_size=100)
        text = (
            r"The loss is (nan|inf) in epoch 1 at learning rate 1e\+30 with seed 7; a finite .* Lower the learning rate"
        )
        with pytest.raises(FitError, match=text):
            fit(data, FitRequest(config, full(data.n, 16), seed=7, epochs=5))

    def test_the_epoch_and_the_rate_are_those_of_the_breakdown(self, data: Interactions, small_config: Config) -> None:
        config = small_config(learning_rate=0.5, learning_rate_decay=0.5)

        def poison(step: int, module: nn.Module) -> None:
            if step == 8:  # three steps an epoch: the last of the third
                with torch.no_grad():
                    module.weight[:] = torch.inf

        with pytest.raises(FitError, match=r"in epoch 4 at learning rate 0\.0625 with seed 0"):
            fit(data, FitRequest(config, full(data.n, 16), seed=0, epochs=5, after_step=poison))

    def test_an_initial_table_that_is_not_finite_is_noticed(self, data: Interactions, small_config: Config) -> None:
        request = FitRequest(
            small_config(), full(data.n, 16), 0, epochs=1, initial={"table": torch.full((data.n, 1, 16), torch.inf)}
        )
        with pytest.raises(FitError, match="in epoch 1"):
            fit(data, request)

    def test_the_thread_count_is_put_back(self, data: Interactions, small_config: Config) -> None:
        before = torch.get_num_threads()
        config = small_config(learning_rate=1e30, batch_size=100, threads=before + 1)
        with pytest.raises(FitError):
            fit(data, FitRequest(config, full(data.n, 16), seed=7, epochs=5))
        assert torch.get_num_threads() == before


@every_backbone
def test_both_kinds_of_mask_that_keep_the_same_train_the_same(
    backbone: str, data: Interactions, small_config: Config, assert_same: Callable[..., None]
) -> None:
    prefix = mixed(data.n, 16, 0.5, seed=0)
    tables = BACKBONES[backbone].tables
    sparse = SparseMask.from_dense(np.tile(prefix.dense(), tables), 16)
    request = FitRequest(small_config(backbone), prefix, seed=0, epochs=2)
    assert_same(fit(data, dataclasses.replace(request, mask=sparse)), fit(data, request))


@pytest.mark.parametrize("backbone", ["lightgcn", "ncf"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_at_equal_budget_dimensions_for_the_needy_rows_beat_dimensions_for_the_others(
    backbone: str, seed: int, small_config: Config
) -> None:
    planted = make_planted(seed)
    data = planted.data
    settings = {"lightgcn": {"learning_rate": 0.05, "decay": 3e-3}, "ncf": {"learning_rate": 0.02, "decay": 1e-3}}
    config = small_config(backbone, batch_size=5000, **settings[backbone])

    def quality(needy: int, others: int) -> float:
        mask = PrefixMask(np.where(planted.needy, needy, others), 16)
        assert mask.kept == 4 * data.n
        return fit(data, FitRequest(config, mask, seed, epochs=100)).validation.mean_quality()

    right, equal_sizes, wrong = quality(10, 2), quality(4, 4), quality(1, 5)
    assert right > 1.1 * wrong
    assert right > 1.05 * equal_sizes


def test_users_without_a_training_pair_are_refused(tiny: Interactions, small_config: Config) -> None:
    data = dataclasses.replace(tiny, train=Pairs.sorted(np.array([0, 1, 2, 4]), np.array([0, 1, 2, 3])))
    with pytest.raises(FitError, match="1 users have no training item"):
        fit(data, FitRequest(small_config(), full(data.n, 16), seed=0, epochs=1))
