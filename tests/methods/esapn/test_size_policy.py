import pytest
import torch
from torch import Tensor, nn

from ciess.methods.esapn.size_policy import ENLARGE, STAY, SizePolicy, greedy, reinforce, sample

LEVELS, ROWS = 4, 300


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def policy() -> SizePolicy:
    """Of no special weights."""
    policy = SizePolicy(LEVELS, 1.0, generator())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator(1))
    return policy


@pytest.fixture
def entities() -> tuple[Tensor, Tensor, Tensor]:
    """Popularities, levels, and which are in the batch."""
    draw = generator(2)
    return (
        torch.randint(0, 6, (ROWS,), generator=draw),
        torch.randint(0, LEVELS, (ROWS,), generator=draw),
        torch.rand(ROWS, generator=draw) < 0.4,
    )


def test_states_weighed_by_their_number_are_a_batch_of_entities(
    policy: SizePolicy, entities: tuple[Tensor, Tensor, Tensor]
) -> None:
    popularity, levels, present = entities
    first, second = nn.BatchNorm1d(32), nn.BatchNorm1d(512)
    with torch.no_grad():
        for norm, scale, shift in (
            (first, policy.embedding_scale, policy.embedding_shift),
            (second, policy.hidden_scale, policy.hidden_shift),
        ):
            norm.weight.copy_(scale)
            norm.bias.copy_(shift)
        one_hot = nn.functional.one_hot(levels[present], LEVELS).float()
        inputs = torch.cat([first(policy.embedding[popularity[present]]), one_hot], dim=1)
        expected = policy.output(torch.tanh(second(policy.hidden(inputs)))).log_softmax(1)
        states = policy.states(popularity, levels)
        found = policy(states, present)[states[present]]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_an_empty_batch_gives_probabilities_all_the_same(policy: SizePolicy) -> None:
    states = torch.zeros(ROWS, dtype=torch.int64)
    assert bool(policy(states, states > 0).isfinite().all())


def test_before_training_staying_leads_by_its_logit_in_every_state(entities: tuple[Tensor, Tensor, Tensor]) -> None:
    policy = SizePolicy(LEVELS, 1.5, generator())
    popularity, levels, present = entities
    found = policy(policy.states(popularity, levels), present).detach()
    torch.testing.assert_close(found[:, STAY] - found[:, ENLARGE], torch.full((len(found),), 1.5))


def test_drawn_actions_have_the_probabilities_of_the_policy() -> None:
    log = torch.tensor([[0.9, 0.1], [0.25, 0.75]]).log()
    states = torch.arange(20_000) % 2
    drawn = sample(log, states, generator()).float()
    assert float(drawn[states == 0].mean()) == pytest.approx(0.1, abs=0.015)
    assert float(drawn[states == 1].mean()) == pytest.approx(0.75, abs=0.015)


def test_the_greedy_action_is_the_likelier_one_and_staying_at_a_tie() -> None:
    log = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6]]).log()
    assert greedy(log, torch.tensor([2, 1, 0, 2])).tolist() == [True, False, False, True]


def test_the_gradient_is_that_of_reinforce() -> None:
    """Of logits z, the gradient of -log pi(a) R is (pi - one-hot(a)) R, summed over the chosen entities."""
    draw = generator(3)
    logits = torch.randn(5, 2, generator=draw, requires_grad=True)
    states = torch.randint(0, 5, (ROWS,), generator=draw)
    actions = torch.rand(ROWS, generator=draw) < 0.5
    chosen = torch.rand(ROWS, generator=draw) < 0.6
    rewards = torch.randn(ROWS, generator=draw)
    reinforce(logits.log_softmax(1), states, actions, rewards, chosen).backward()
    expected = torch.zeros(5, 2)
    probabilities = logits.detach().softmax(1)
    for row in range(ROWS):
        if chosen[row]:
            taken = torch.tensor([0.0, 1.0]) if actions[row] else torch.tensor([1.0, 0.0])
            expected[states[row]] += (probabilities[states[row]] - taken) * rewards[row]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-4)
