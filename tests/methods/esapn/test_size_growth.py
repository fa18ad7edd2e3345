from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ciess.config.fit import FitConfig
from ciess.config.models import WITHOUT_USERS
from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.methods.esapn.pair_stream import Batch
from ciess.methods.esapn.size_growth import SizeGrowth
from ciess.methods.esapn.size_policy import greedy
from ciess.methods.journal import Journal
from ciess.models import BACKBONES
from ciess.training.prepared import prepare

CPU = torch.device("cpu")
Config = Callable[..., Any]
every_backbone = pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in WITHOUT_USERS])


@pytest.fixture(scope="module")
def data(planted: Planted) -> Interactions:
    return planted.data


@pytest.fixture
def make(data: Interactions, small_config: Config) -> Callable[..., SizeGrowth]:
    """make(backbone, epochs=..., ...): settings of ESAPN, the other ones small."""

    def call(backbone: str = "lightgcn", seed: int = 0, **settings: Any) -> SizeGrowth:
        own = {"sizes": (2, 4, 8, 16), "batch_size": 300, "learning_rate": 0.01} | settings
        config = FitConfig(**(dict(small_config(backbone)) | {"esapn": own}))
        return SizeGrowth(data, config, seed, prepare(data, CPU))

    return call


def everything(growth: SizeGrowth) -> dict[str, Tensor]:
    """All that a step may change but the policies: weights, levels, losses, and what the optimiser remembers."""
    state = growth.optimizer.state_dict()["state"]
    tensors = {f"slot.{index}.{name}": value for index, slots in state.items() for name, value in slots.items()}
    for part in (growth.embedding, growth.backbone, growth.losses):
        tensors |= {f"{type(part).__name__}.{name}": value for name, value in part.state_dict().items()}
    return {name: value.detach().clone() for name, value in tensors.items()}


def policies(growth: SizeGrowth) -> Tensor:
    parameters = [parameter for policy in growth.policies for parameter in policy.parameters()]
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def spread(growth: SizeGrowth) -> None:
    """Rows of every level, and a stream that brought half of all entities."""
    for number in range(3):
        rows = torch.arange(growth.data.n) % 5 > number
        growth.embedding.enlarge(rows)
    odd = torch.arange(growth.data.n) % 2
    growth.losses.seen.copy_(torch.maximum(growth.losses.seen, odd))
    growth.losses.counts += odd


@every_backbone
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("trained", [False, True])
def test_a_tentative_enlargement_leaves_no_trace(
    make: Callable[..., SizeGrowth], backbone: str, steps: int, trained: bool
) -> None:
    growth = make(backbone, initial_stay=0.0)
    assert growth.backbone.noise is not None
    growth.backbone.noise.manual_seed(0)
    batches = growth.stream.epoch(1)
    spread(growth)
    if trained:
        growth.train(batches[0])
    before, policy, inside = everything(growth), policies(growth), []
    judge = growth.held_out_losses

    def look(batch: Batch) -> Tensor:
        inside.append(everything(growth))
        return judge(batch)

    growth.held_out_losses = look  # type: ignore[method-assign]
    growth.policy_step(batches[:steps], growth.stream.judging(1), 1)
    after = everything(growth)
    assert set(after) == set(before)
    for name, value in before.items():
        assert value.equal(after[name]), name
    assert not policies(growth).equal(policy)
    grown = inside[0]["LeveledEmbedding.levels"] - before["LeveledEmbedding.levels"]
    assert set(grown.tolist()) == {0, 1}
    trains = [name for name in before if not inside[0][name].equal(before[name]) and name.startswith("slot")]
    assert bool(trains) == trained


def test_a_row_that_grew_takes_steps_as_long_as_before(make: Callable[..., SizeGrowth]) -> None:
    """Without a second moment Adam's first step would be sqrt(10) times the learning rate in every column."""
    growth = make(learning_rate=1e-3)
    batch = growth.stream.epoch(1)[0]
    for _ in range(50):
        growth.train(batch)
    present = torch.zeros(growth.data.n, dtype=torch.bool)
    present[batch[0]] = True
    present[growth.data.n_users + batch[1]] = True
    growth.enlarge(present)
    old, new = (growth.optimizer.state[growth.embedding.weights[level]]["exp_avg_sq"] for level in (0, 1))
    torch.testing.assert_close(new[present], (old[present].mean(1, keepdim=True) / 2).expand(-1, 4))
    assert not new[~present].any()
    before = growth.embedding.weights[1].detach().clone()
    growth.train(batch)
    moved = (growth.embedding.weights[1].detach() - before)[present].abs()
    assert 1e-5 < float(moved.mean()) < 1.2e-3


def test_policies_learn_by_reinforce_from_last_losses_minus_the_losses_now(make: Callable[..., SizeGrowth]) -> None:
    """The gradient that reaches the logits of each state, by a loop over the entities of the held-out batch."""
    growth = make(initial_stay=0.0, memory=2)
    batches = growth.stream.epoch(1)
    for number in (0, 1, 2):
        growth.recommender_step(batches[number])
        growth.remember(tuple(part[20 * number :] for part in growth.stream.judging(1)))  # type: ignore[arg-type]
    spread(growth)
    users, positives, negatives = growth.stream.judging(1)
    unseen = [int(entity) for entity in users if growth.embedding.levels[entity] < 3][:5]
    growth.losses.seen[unseen] = 0
    # Whatever the losses are: they are put in the place of the model's.
    losses = torch.rand(len(users), generator=torch.Generator().manual_seed(5))
    levels, states, logs, actions = growth.embedding.levels.clone(), growth.states(), [], []

    def judged(batch: Batch) -> Tensor:
        actions.append(growth.embedding.levels > levels)
        return losses

    growth.held_out_losses = judged  # type: ignore[method-assign]
    for policy in growth.policies:
        policy.register_forward_hook(lambda _, __, output: (output.retain_grad(), logs.append(output))[0])
    growth.policy_step([], (users, positives, negatives), 1)
    (action,) = actions
    entities = torch.cat([users, positives + growth.data.n_users])
    values = losses.repeat(2)
    expected = [torch.zeros_like(log) for log in logs]
    taught = 0
    for entity in range(growth.data.n):
        own = values[entities == entity]
        if not len(own) or not growth.losses.seen[entity] or levels[entity] == 3:
            assert not (action[entity] and (levels[entity] == 3 or not len(own)))
            continue
        past = growth.losses.last[entity, : int(growth.losses.seen[entity])]
        side = int(entity >= growth.data.n_users)
        state = states[side][entity - side * growth.data.n_users]
        expected[side][state, int(action[entity])] -= past.mean() - own.mean()
        taught += 1
    assert taught > 30
    assert len(unseen) == 5
    for log, gradient in zip(logs, expected, strict=True):
        torch.testing.assert_close(log.grad, gradient, rtol=1e-3, atol=1e-4)


def test_entities_whose_loss_falls_when_they_are_enlarged_are_enlarged(make: Callable[..., SizeGrowth]) -> None:
    """Popular users and unpopular items gain from a larger size; all others lose by it, and keep the smallest."""
    growth = make(initial_stay=0.3, policy_learning_rate=3e-3, held_out=0.5)
    n, n_users = growth.data.n, growth.data.n_users
    popular = torch.arange(n) % 2 == 0
    gains = torch.where(torch.arange(n) < n_users, popular, ~popular)
    growth.losses.counts += torch.where(popular, 200, 3)
    growth.losses.seen += 1
    growth.losses.last[:, 0] = 0.5

    def judged(batch: Batch) -> Tensor:
        effect = torch.where(gains, -0.2, 0.2) * growth.embedding.levels
        noise = torch.rand(len(batch[0]), generator=torch.Generator().manual_seed(int(batch[0][0])))
        return 0.5 * noise + 0.25 + 0.5 * (effect[batch[0]] + effect[batch[1] + n_users])

    growth.held_out_losses = judged  # type: ignore[method-assign]
    for number in range(60):
        growth.policy_step([], growth.stream.judging(number), number)
    everyone = torch.ones(n, dtype=torch.bool)
    chosen = [
        greedy(policy(own, everyone[rows]), own)
        for policy, own, rows in zip(growth.policies, growth.states(), growth.sides, strict=True)
    ]
    assert torch.cat(chosen).equal(gains)


def test_entities_whose_loss_rises_while_they_stay_are_enlarged(make: Callable[..., SizeGrowth]) -> None:
    """A whole stream: losses of rare entities rise until they grow, those of popular ones fall unless they grow."""
    settings = {"lookahead": 0.0, "batch_size": 60, "held_out": 0.5}
    growth = make(initial_stay=0.3, policy_learning_rate=3e-3, **settings)
    n, n_users = growth.data.n, growth.data.n_users
    rare = torch.arange(n) % 2 == 0
    growth.losses.counts += torch.where(rare, 3, 3000)
    steps = 0

    def judged(batch: Batch) -> Tensor:
        small = growth.embedding.levels == 0
        rising = torch.where(small, 0.2 + 0.01 * steps, 0.1)
        falling = torch.where(small, 0.5 - 0.001 * steps, 0.9)
        losses = torch.where(rare, rising, falling)
        return 0.5 * (losses[batch[0]] + losses[batch[1] + n_users])

    def remember(held_out: Batch) -> dict[str, Tensor]:
        nonlocal steps
        steps += 1
        return SizeGrowth.remember(growth, held_out)

    growth.held_out_losses, growth.remember = judged, remember  # type: ignore[method-assign]
    everyone = torch.ones(n, dtype=torch.bool)
    for policy, own, rows in zip(growth.policies, growth.states(), growth.sides, strict=True):
        assert not greedy(policy(own, everyone[rows]), own).any()
    for number in (1, 2):
        growth.epoch(number, Journal())
    grown = growth.embedding.levels > 0
    streamed = growth.losses.counts > torch.where(rare, 3, 3000)
    assert float(grown[rare & streamed].float().mean()) > 0.95
    assert float(grown[~rare].float().mean()) < 0.05


def test_entities_that_the_policy_would_enlarge_grow_once_they_come_by(make: Callable[..., SizeGrowth]) -> None:
    growth = make(initial_stay=-1.0)
    users, positives, negatives = growth.stream.epoch(1)[0]
    batch = (users[:20], positives[:20], negatives[:20])
    growth.recommender_step(batch)
    present = torch.zeros(growth.data.n, dtype=torch.bool)
    present[batch[0]] = True
    present[batch[1] + growth.data.n_users] = True
    assert growth.embedding.levels.equal(present.long())
    assert growth.losses.counts.equal(
        torch.bincount(torch.cat([batch[0], batch[1] + growth.data.n_users]), minlength=growth.data.n)
    )
    for number in range(2, 6):
        growth.recommender_step(batch)  # once more before the policies were asked anew
        growth.policy_step([], growth.stream.judging(number), number)
        growth.recommender_step(batch)
        assert growth.embedding.levels.equal(min(number, 3) * present)


def test_entities_that_stay_are_trained(make: Callable[..., SizeGrowth]) -> None:
    growth = make(initial_stay=100.0)
    batches = growth.stream.epoch(1)
    first = growth.recommender_step(batches[0])
    for _ in range(20):
        last = growth.recommender_step(batches[0])
    assert float(last["loss"]) < 0.9 * float(first["loss"])
    assert int(last["grown"]) == 0
    assert not growth.embedding.levels.any()


@every_backbone
def test_what_is_remembered_are_held_out_losses_of_the_model_as_it_is(
    make: Callable[..., SizeGrowth], backbone: str
) -> None:
    growth = make(backbone, initial_stay=0.0)
    assert growth.backbone.noise is not None
    growth.backbone.noise.manual_seed(0)
    growth.recommender_step(growth.stream.epoch(1)[0])
    before, (users, positives, negatives) = everything(growth), growth.stream.judging(1)
    with torch.no_grad():
        growth.backbone.eval()
        encoded = growth.backbone.encode(growth.embedding(), growth.graph)
        scores = growth.backbone.score_all(encoded, torch.arange(growth.data.n_users))
        growth.backbone.train()
    growth.remember((users, positives, negatives))
    losses = torch.sigmoid(scores[users, negatives] - scores[users, positives])
    for entity, own in (
        (int(users[0]), users == users[0]),
        (growth.data.n_users + int(positives[1]), positives == positives[1]),
    ):
        np.testing.assert_allclose(float(growth.losses.last[entity, 0]), float(losses[own].mean()), rtol=1e-4)
    present = torch.zeros(growth.data.n, dtype=torch.bool)
    present[users] = True
    present[positives + growth.data.n_users] = True
    assert growth.losses.seen.equal(present.long())
    after = everything(growth)
    assert all(value.equal(after[name]) for name, value in before.items() if not name.startswith("EntityLosses"))


@every_backbone
def test_levels_never_fall_and_every_size_is_of_the_set(make: Callable[..., SizeGrowth], backbone: str) -> None:
    growth = make(backbone, initial_stay=0.0, policy_learning_rate=3e-3)
    journal, before = Journal(), growth.embedding.levels.clone()
    for number in (1, 2, 3):
        share = growth.epoch(number, journal)
        levels = growth.embedding.levels.clone()
        assert bool((levels >= before).all())
        assert share == pytest.approx(float((levels > before).double().mean()))
        before = levels
    assert before.any()
    assert set(growth.embedding.row_sizes().tolist()) <= {2, 4, 8, 16}
    assert [row["step"] for row in journal.rows] == [5, 10, 15]
    assert sum(row["grown"] for row in journal.rows) == int(before.sum())  # type: ignore[misc]
    last = journal.rows[-1]
    assert last["sparsity"] == pytest.approx(1 - float(growth.embedding.row_sizes().double().mean()) / 16)
    assert last["mean_item_size"] == pytest.approx(
        float(growth.embedding.row_sizes()[growth.data.n_users :].double().mean())
    )


def test_a_streamed_batch_is_as_large_as_the_recommender_s_unless_it_is_given(
    planted: Planted, small_config: Callable[..., RecommenderConfig]
) -> None:
    plain = small_config(batch_size=170)
    shared = {name: getattr(plain, name) for name in RecommenderConfig.model_fields}
    for own, expected in (({}, 170), ({"batch_size": 60}, 60)):
        config = FitConfig(**shared, esapn={"sizes": (2, 4)} | own)
        growth = SizeGrowth(planted.data, config, 0, prepare(planted.data, torch.device("cpu")))
        assert {len(users) for users, _, _ in growth.stream.epoch(1)[:-1]} == {expected}
