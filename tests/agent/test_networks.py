from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ciess.agent.networks import Actor, Critic, action_distance, actions_to_sizes, sizes_to_actions, whole_sizes
from ciess.devices import cpu_threads


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Agents run on one thread, as in a search."""
    with cpu_threads(1):
        yield


def actor(seed: int = 0, width: int = 3, hidden: int = 256) -> Actor:
    return Actor(width, hidden, torch.Generator().manual_seed(seed))


def critic(seed: int = 0, width: int = 3, hidden: int = 256) -> Critic:
    return Critic(width, hidden, torch.Generator().manual_seed(seed))


def random_states(count: int, width: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((count, width), dtype=np.float32))


def layers_by_hand(network: Actor | Critic, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    weights = {name: value.numpy().astype(np.float64) for name, value in network.state_dict().items()}
    hidden = inputs.astype(np.float64)
    for name in ("first", "second"):
        hidden = np.maximum(hidden @ weights[f"layers.{name}.weight"].T + weights[f"layers.{name}.bias"], 0)
    output: npt.NDArray[np.float64] = hidden @ weights["layers.last.weight"][0] + weights["layers.last.bias"]
    return output


class TestSizes:
    @pytest.mark.parametrize("max_size", [1, 2, 3, 64, 127, 128, 200, 256])
    def test_size_to_action_to_size_is_the_identity(self, max_size: int) -> None:
        sizes = np.arange(1, max_size + 1, dtype=np.int16)
        there = sizes_to_actions(sizes, max_size)
        back = actions_to_sizes(there, max_size)
        np.testing.assert_allclose(back, sizes, atol=1e-4)
        np.testing.assert_array_equal(whole_sizes(back, max_size), sizes)
        assert (there.dtype, back.dtype, whole_sizes(back, max_size).dtype) == (np.float32, np.float32, np.int16)

    @pytest.mark.parametrize("max_size", [2, 3, 128, 256])
    def test_size_1_is_action_minus_1_and_the_largest_is_1_with_equal_steps_between(self, max_size: int) -> None:
        actions = sizes_to_actions(np.arange(1, max_size + 1), max_size)
        np.testing.assert_allclose(actions, np.linspace(-1, 1, max_size), atol=1e-6)
        assert (actions[0], actions[-1]) == (-1, 1)

    @pytest.mark.parametrize("max_size", [2, 3, 128, 256])
    def test_action_distance_is_how_far_sizes_lie_apart_as_actions(self, max_size: int) -> None:
        actions = sizes_to_actions(np.array([1, max_size]), max_size)
        assert actions[1] - actions[0] == pytest.approx(action_distance(max_size - 1, max_size))
        assert action_distance(2.5, max_size) == pytest.approx(2.5 * action_distance(1, max_size))

    def test_with_one_size_every_action_means_it(self) -> None:
        assert actions_to_sizes(np.array([-1.0, 0.3, 1.0]), 1).tolist() == [1, 1, 1]

    def test_whole_sizes_are_the_nearest_ones_inside_1_to_max_size(self) -> None:
        sizes = np.array([-3.0, 0.2, 1.49, 1.51, 64.5001, 127.4, 128.6, 1e6])
        assert whole_sizes(sizes, 128).tolist() == [1, 1, 1, 2, 65, 127, 128, 128]


class TestWeights:
    @pytest.mark.parametrize("make", [actor, critic])
    def test_equal_seeds_give_equal_weights_and_others_others(self, make) -> None:
        one, same, other = (list(make(seed).parameters()) for seed in (3, 3, 4))
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    @pytest.mark.parametrize("make", [actor, critic])
    def test_the_global_random_state_is_neither_read_nor_moved(self, make) -> None:
        first = list(make().parameters())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1234)
            before = torch.get_rng_state()
            second = list(make().parameters())
            assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_weights_and_biases_fill_plus_minus_1_over_root_of_inputs_and_the_last_weights_3e_3(self) -> None:
        weights = critic(width=3).state_dict()
        bounds = {"first": 4**-0.5, "second": 256**-0.5, "last": 3e-3}
        for name, bound in bounds.items():
            values = weights[f"layers.{name}.weight"]
            assert 0.95 * bound < values.abs().max() <= bound
            assert abs(float(values.mean())) < 0.15 * bound
        for name, bound in {"first": 4**-0.5, "second": 256**-0.5}.items():
            assert 0.95 * bound < weights[f"layers.{name}.bias"].abs().max() <= bound

    def test_first_actions_mean_sizes_within_5_of_the_middle_for_all_states(self) -> None:
        states = random_states(1000)
        with torch.no_grad():
            sizes = np.stack([actions_to_sizes(actor(seed)(states).numpy(), 128) for seed in range(50)])
        assert 59.5 < sizes.min() < 61.5
        assert 67.5 < sizes.max() < 69.5
        assert np.ptp(sizes, axis=1).max() < 1.5

    def test_first_values_are_near_0_for_all_states_and_actions(self) -> None:
        states, actions = random_states(1000), torch.linspace(-1, 1, 1000)
        with torch.no_grad():
            values = torch.stack([critic(seed)(states, actions) for seed in range(20)])
        assert values.abs().max() < 0.075


class TestForward:
    def test_actor_is_two_layers_with_relu_and_a_tanh_on_states_in_minus_1_to_1(self) -> None:
        states, network = random_states(50, 4), actor(width=4, hidden=16)
        expected = np.tanh(layers_by_hand(network, 2 * states.numpy() - 1))
        with torch.no_grad():
            np.testing.assert_allclose(network(states).numpy(), expected, rtol=1e-5, atol=1e-6)

    def test_critic_is_two_layers_with_relu_on_states_in_minus_1_to_1_and_the_action(self) -> None:
        states, network = random_states(50, 4), critic(width=4, hidden=16)
        actions = np.linspace(-1, 1, 50, dtype=np.float32)
        expected = layers_by_hand(network, np.column_stack([2 * states.numpy() - 1, actions]))
        with torch.no_grad():
            values = network(states, torch.from_numpy(actions))
        np.testing.assert_allclose(values.numpy(), expected, rtol=1e-5, atol=1e-6)

    def test_actor_never_leaves_minus_1_to_1(self) -> None:
        network = actor()
        with torch.no_grad():
            network.layers.last.bias.fill_(1e4)
            assert network(random_states(3)).tolist() == [1, 1, 1]

    def test_gradients_are_those_of_finite_differences(self) -> None:
        network = critic(hidden=8).double()
        with torch.no_grad():
            network.layers.last.weight.mul_(100)
        states = random_states(6).double().requires_grad_()
        actions = torch.linspace(-1, 1, 6, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(network, (states, actions))
        names = dict(network.named_parameters())

        def of_weights(*values: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (states, actions))

        assert torch.autograd.gradcheck(of_weights, tuple(names.values()))
