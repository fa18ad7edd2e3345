"""Settings of the two agents."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ciess.config.types import Frozen, UnitInterval


class AgentConfig(Frozen):
    """TD3 (Fujimoto et al., ICML 2018) for each of the two sides, users and items (section 2.2.5)."""

    hidden: PositiveInt = 256
    """Width of both hidden layers of actor and critic (TD3 and published code: 256)."""
    scale: Literal["linear", "log"] = "linear"
    """How sizes lie on the actors' range: evenly (section 2.2.4), or by their logarithms (default at a sparsity), so
    that small ones are not where tanh is flat."""
    state: Literal["paper", "rich"] = "paper"
    """What an agent sees of a row: popularity, size and quality ratio (Eq. 6), or also the share of the reference's row
    that lies beyond the budget's columns, and degree and quality of its neighbours (future work of the paper)."""
    begin: Literal["drawn", "rule", "kinds"] = "drawn"
    """What an actor wants at first: what its drawn weights say (Algorithm 1); the sizes of the rule that a search at a
    sparsity begins with, to which it is fitted (default there); or the best ones that strategy `kinds` has found
    in the first part of the search, whose fits fill the replay buffers."""
    kinds_share: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Share of the fits of a budget that `kinds` makes before actors begin with its best."""
    episodes_from: Literal["full", "best"] = "full"
    """Where an episode begins: with everyone at the largest size (Algorithm 1, line 4), or with the best mask of its
    target so far (default at a sparsity)."""
    held_to_best: NonNegativeFloat = 0.0
    """Weight of the squared distance between an actor's actions and the sizes of the best mask so far, beside the
    critic's value divided by its mean (TD3+BC, Fujimoto and Gu, NeurIPS 2021); 0 leaves the actor to the critic."""
    warm_up: NonNegativeInt = 0
    """Fits from which the critics learn alone, before their gradient moves the actor (TD3's code: 25,000 steps of
    chance; 30 at a sparsity)."""
    actor_learning_rate: PositiveFloat = 1e-3
    """Learning rate of Adam for the actor (published code)."""
    critic_learning_rate: PositiveFloat = 3e-3
    """Learning rate of Adam for the critics (published code)."""
    gamma: UnitInterval = 0.99
    """Discount of the next state's value (published code); 0 makes the task the contextual bandit that it is."""
    tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Step of the target networks towards the online ones (TD3)."""
    batch_size: PositiveInt = 4096
    """Transitions an update, drawn with replacement (published code)."""
    replay_iterations: PositiveInt = 100
    """Iterations that the replay buffer holds, the oldest leave first (published code: 100 times all entities)."""
    gradient_steps: PositiveInt = 1
    """Critic updates a side for each told fit (published code: 1; Algorithm 1 draws one batch an iteration)."""
    policy_delay: PositiveInt = 2
    """Critic updates for each actor update (TD3 and published code: 2)."""
    target_noise: NonNegativeFloat = 2.0
    """Standard deviation in dimensions of the noise on target actions, drawn for each transition (published code)."""
    target_noise_clip: NonNegativeFloat = 5.0
    """Largest noise on target actions, in dimensions (published code)."""
    gradient_clip: PositiveFloat | None = None
    """Largest norm of a gradient; None does not clip (published code: 0.01, which Adam mostly cancels)."""
    target_critic_every_update: bool = False
    """Move the target critics at every update instead of with the actor's (published code; TD3 moves both late)."""
    walk_critic: Literal["first", "min"] = "first"
    """Critic that chooses among the walk's sizes, Eq. 14: the first of the twins (published code), or their minimum."""
