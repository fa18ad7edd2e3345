"""Columns of history.parquet: what each iteration of a search did, and what it cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ciess.agent.policy import Choice
from ciess.config.search import SearchConfig
from ciess.search.candidates import Candidate, mean
from ciess.search.learner import Arrays, Learner
from ciess.storage.columns import SIDES, side_columns


def history_row(
    candidate: Candidate,
    config: SearchConfig,
    learner: Learner,
    label: int,
    choices: Mapping[str, Choice],
    transition: Arrays,
    losses: Mapping[str, float | None],
) -> dict[str, Any]:
    """The columns of HISTORY that are no seconds.

    Args:
        candidate: what was fitted.
        config: of the search.
        learner: the agents, with the price of the iteration.
        label: position of the iteration's target, 0 without any.
        choices: how each side came to its sizes.
        transition: of every entity, arrays [n].
        losses: mean loss of the critics of each side.

    Returns:
        values by column.
    """
    price = learner.prices[label]
    rewards = learner.rewards(transition, price)
    wanted = mean(np.concatenate([choices[side].actor for side in SIDES]))
    row: dict[str, Any] = {
        "episode": candidate.episode,
        "iteration": candidate.iteration,
        "lane": candidate.lane,
        "target_sparsity": config.targets[label] if config.targets else None,
        "memory_weight": price,
        "sparsity": candidate.sparsity,
        "raw_sparsity": 1 - wanted / config.max_size,
        "quality": candidate.quality,
        "quality_ratio": candidate.quality_ratio,
        "choice_quality": candidate.choice_quality,
    }
    for side, rows in learner.environment.sides.items():
        choice = choices[side]
        stages = (choice.actor, choice.noisy, choice.walked, transition["sizes"][rows])
        row |= side_values(side, stages, transition["ratios"][rows], rewards[rows], losses[side])
    return row


def side_values(
    side: str,
    stages: Sequence[npt.NDArray[Any]],
    ratios: npt.NDArray[np.float32],
    rewards: npt.NDArray[np.float32],
    loss: float | None,
) -> dict[str, float | None]:
    """The columns of one side with b entities.

    Args:
        side: `users` or `items`.
        stages: sizes that the actor wants, after noise, after the walk, and as fitted, each [b].
        ratios: Eq. 7, float32[b].
        rewards: Eq. 10, float32[b].
        loss: mean loss of the critics.

    Returns:
        values by column.
    """
    means = [mean(values) for values in (*stages, ratios, rewards)]
    return dict(zip(side_columns(side), [*means, float(stages[-1].std(dtype=np.float64)), loss], strict=True))
