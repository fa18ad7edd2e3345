"""The losses beside BPR, against loops over users, items and pairs in double precision."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ciess.config.recommender import RecommenderConfig, TrainingConfig
from ciess.data import Interactions
from ciess.data.planted import Planted
from ciess.errors import FitError
from ciess.masks.mask import PrefixMask
from ciess.masks.sizes import full
from ciess.models import Backbone
from ciess.training.fit import fit
from ciess.training.loop import FitRequest, Training, build
from ciess.training.losses import Batch, loss_of
from ciess.training.prepared import prepare

CPU = torch.device("cpu")
BACKBONES = ["lightgcn", "ngcf", "ncf", "items"]
USERS, ITEMS = torch.tensor([0, 0, 3, 5, 7]), torch.tensor([1, 4, 4, 2, 9])
SHARED = torch.tensor([4, 8, 2, 60, 33])


@pytest.fixture
def data(planted: Planted) -> Interactions:
    return planted.data


@pytest.fixture
def model(data: Interactions, small_config):
    """model(backbone): backbone, masked table and vectors, in evaluation mode."""

    def make(name: str) -> tuple[Backbone, Tensor, Tensor]:
        backbone, table = build(data, small_config(name, model={"message_dropout": 0.0} if name == "ngcf" else {}), 0)
        backbone.eval()
        flat = 3 * table.flatten(1)
        return backbone, flat, backbone.encode(flat, prepare(data, CPU).graph(backbone.normalisation))

    return make


def all_scores(backbone: Backbone, encoded: Tensor) -> np.ndarray:
    return backbone.score_all(encoded, torch.arange(backbone.n_users)).detach().double().numpy()


@pytest.mark.parametrize("name", BACKBONES)
def test_pair_and_cross_scores_are_parts_of_all_scores(model, name: str) -> None:
    backbone, _, encoded = model(name)
    scores = backbone.score_all(encoded, torch.arange(backbone.n_users))
    torch.testing.assert_close(backbone.pair_scores(encoded, USERS, ITEMS), scores[USERS, ITEMS], rtol=1e-4, atol=1e-6)
    crossed = backbone.cross_scores(encoded, USERS, SHARED)
    torch.testing.assert_close(crossed, scores[USERS][:, SHARED], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("every", [True, False], ids=["all items", "shared"])
def test_softmax_is_minus_the_logarithm_of_the_pairs_share(model, name: str, every: bool) -> None:
    backbone, flat, encoded = model(name)
    shared = torch.arange(backbone.n_items) if every else SHARED
    batch = Batch(USERS, ITEMS, shared, every_item=every)
    found = loss_of(backbone, flat, encoded, batch, TrainingConfig(loss="softmax"), 0.0)
    scores = all_scores(backbone, encoded)
    total = 0.0
    for user, item in zip(USERS.tolist(), ITEMS.tolist(), strict=True):
        others = [i for i in shared.tolist() if i != item]
        own = np.exp(scores[user, item])
        total -= np.log(own / (own + np.exp(scores[user, others]).sum()))
    assert found.item() == pytest.approx(total / len(USERS), rel=1e-5)


@pytest.mark.parametrize("name", ["lightgcn", "ngcf", "items"])
def test_squared_is_the_sum_over_all_users_and_items(data: Interactions, model, name: str) -> None:
    """Gram matrices (iALS) against two loops, users' terms divided by their number of pairs."""
    backbone, flat, encoded = model(name)
    users, items = torch.from_numpy(data.train.users).long(), torch.from_numpy(data.train.items).long()
    settings = TrainingConfig(loss="squared", unobserved_weight=0.7)
    found = loss_of(backbone, flat, encoded, Batch(users, items, SHARED), settings, 0.0)
    scores, degrees = all_scores(backbone, encoded), np.maximum(data.user_degrees(), 1)
    weights = degrees.mean() / degrees
    pairs = sum(weights[u] * (1 - scores[u, i]) ** 2 for u, i in zip(users.tolist(), items.tolist(), strict=True))
    every = sum(weights[u] * scores[u, i] ** 2 for u in range(data.n_users) for i in range(data.n_items))
    assert found.item() == pytest.approx((pairs + 0.7 * every) / len(users), rel=1e-4)


def test_squared_of_a_tower_takes_shared_items_for_all(data: Interactions, model) -> None:
    """With all items shared and every training pair in the batch, it is the same sum."""
    backbone, flat, encoded = model("ncf")
    users, items = torch.from_numpy(data.train.users).long(), torch.from_numpy(data.train.items).long()
    settings = TrainingConfig(loss="squared")
    found = loss_of(backbone, flat, encoded, Batch(users, items, torch.arange(data.n_items)), settings, 0.0)
    scores, degrees = all_scores(backbone, encoded), np.maximum(data.user_degrees(), 1)
    weights = degrees.mean() / degrees
    pairs = (weights[data.train.users] * (1 - scores[data.train.users, data.train.items]) ** 2).sum()
    every = (weights[:, None] * scores**2)[np.unique(data.train.users)].sum()
    assert found.item() == pytest.approx((pairs + every) / len(users), rel=1e-4)


@pytest.mark.parametrize("name", ["lightgcn", "ngcf", "items"])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_the_whole_batch_has_the_loss_and_gradients_of_looked_up_pairs(
    data: Interactions, model, name: str, leave_one_out: bool
) -> None:
    backbone, flat, encoded = model(name)
    history = prepare(data, CPU).history
    users, items = history.pairs
    settings = TrainingConfig(loss="squared", leave_one_out=leave_one_out)
    gradients, losses = [], []
    for whole in (None, history):
        vectors = encoded.detach().clone().requires_grad_()
        loss = loss_of(backbone, flat, vectors, Batch(users, items, SHARED, False, whole), settings, 0.0)
        loss.backward()
        gradients.append(vectors.grad)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "squared"])
@pytest.mark.parametrize("name", BACKBONES)
def test_the_gradient_is_that_of_finite_differences(model, name: str, loss: str) -> None:
    backbone, flat, _ = model(name)
    backbone.double()
    flat = flat.double()
    settings = TrainingConfig(loss=loss, leave_one_out=backbone.leaves_one_out)
    batch = Batch(USERS, ITEMS, SHARED)
    vectors = 0.5 * torch.randn(backbone.n_users + backbone.n_items, 24, generator=torch.Generator().manual_seed(0))
    vectors = vectors.double().requires_grad_()
    loss_of(backbone, flat, vectors, batch, settings, 0.0).backward()
    direction = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        ahead, behind = (
            float(loss_of(backbone, flat, vectors + step * direction, batch, settings, 0.0)) for step in (1e-5, -1e-5)
        )
    assert float((vectors.grad * direction).sum()) == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)


def test_items_leave_exactly_the_pairs_own_share_out(data: Interactions, model) -> None:
    """The score with the item's row taken out of the user's sum, its weight du^-1/2 kept (FISM)."""
    backbone, flat, encoded = model("items")
    rows = flat[data.n_users :].double()
    degrees = np.maximum(data.user_degrees(), 1)
    users, items = data.train.users[::37], data.train.items[::37]
    pair = torch.from_numpy(users).long(), torch.from_numpy(items).long()
    found = backbone.pair_scores(encoded, *pair) - backbone.own_share(encoded[backbone.n_users :], *pair)
    for place, (user, item) in enumerate(zip(users, items, strict=True)):
        others = [i for i in data.train.items[data.train.users == user] if i != item]
        history = sum((backbone.history_weight[i].double() * rows[i] for i in others), torch.zeros(16).double())
        score = float(history @ rows[item] * backbone.item_weight[item]) / degrees[user] ** 0.5
        assert found[place].item() == pytest.approx(score, rel=1e-3, abs=1e-6)


def test_lightgcn_leaves_the_items_first_hop_out_where_users_have_no_rows(data: Interactions, model) -> None:
    """There a user is Du^-1/2 R Di^-1/2 F_i, of which the pair's own edge is one term."""
    backbone, flat, _ = model("lightgcn")
    flat = flat.clone()
    flat[: data.n_users] = 0
    encoded = backbone.encode(flat, prepare(data, CPU).graph("symmetric")).double()
    degrees = np.maximum(data.degrees(), 1)
    user, item = int(data.train.users[10]), int(data.train.items[10])
    others = [data.n_users + i for i in data.train.items[data.train.users == user] if i != item]
    vector = sum(encoded[i] * degrees[i] ** -0.5 for i in others) * degrees[user] ** -0.5
    pair = torch.tensor([user]), torch.tensor([item])
    found = backbone.pair_scores(encoded, *pair) - backbone.own_share(encoded[backbone.n_users :], *pair)
    assert found.item() == pytest.approx(float(vector @ encoded[data.n_users + item]), rel=1e-4)


@pytest.mark.parametrize("loss", ["softmax", "squared"])
def test_the_penalty_is_that_of_looked_up_rows(model, loss: str) -> None:
    backbone, flat, encoded = model("lightgcn")
    settings = TrainingConfig(loss=loss)
    with torch.no_grad():
        plain, penalised = (
            loss_of(backbone, flat, encoded, Batch(USERS, ITEMS, SHARED), settings, decay) for decay in (0.0, 0.6)
        )
    rows = flat.square().sum(1)
    looked_up = 2 * rows[0] + rows[3] + rows[5] + rows[7]
    offset = backbone.n_users
    looked_up = looked_up + rows[offset + 1] + 2 * rows[offset + 4] + rows[offset + 2] + rows[offset + 9]
    torch.testing.assert_close(penalised - plain, 0.3 * looked_up / 5, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "squared"])
@pytest.mark.parametrize("name", BACKBONES)
def test_training_lowers_it_and_equal_seeds_give_equal_bits(
    data: Interactions, small_config, name: str, loss: str
) -> None:
    config: RecommenderConfig = small_config(name, loss=loss, learning_rate=0.02, sampling="interaction")
    request = FitRequest(config, full(data.n, 16), 3, epochs=8, evaluate=False)
    first, second = fit(data, request), fit(data, request)
    assert first.history[-1].loss < first.history[0].loss
    assert first.table.tobytes() == second.table.tobytes()


def test_a_relative_rate_is_a_multiple_of_the_deviation_of_the_kept_entries(data: Interactions, small_config) -> None:
    sizes = np.where(np.arange(data.n) % 2, 4, 0).astype(np.int16)
    table = torch.zeros(data.n, 1, 16)
    table[1::2, 0, :4] = 0.25
    table[::2] = 7.0  # of rows that the mask drops
    config = small_config(learning_rate=0.5, relative_rate=True)
    request = FitRequest(config, PrefixMask(sizes, 16), 0, initial={"table": table})
    assert Training(data, request, prepare(data, CPU)).learning_rate(1) == pytest.approx(0.125)


@pytest.mark.parametrize("loss", ["bpr", "softmax", "squared"])
def test_a_loss_that_overflows_is_refused(data: Interactions, small_config, loss: str) -> None:
    config = small_config(loss=loss, learning_rate=1e30, sampling="interaction")
    with pytest.raises(FitError, match=r"The loss is (nan|inf) in epoch \d.*Lower the learning rate"):
        fit(data, FitRequest(config, full(data.n, 16), 0, epochs=5, evaluate=False))
