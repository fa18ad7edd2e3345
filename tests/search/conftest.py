from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tiny_searches import Spied

from ciess.agent.replay import Replay
from ciess.agent.td3 import TD3


@pytest.fixture
def spied() -> Iterator[Spied]:
    """Copies of what goes into Replay.add and TD3.update, and comes out of TD3.act; users always come first."""
    spied = Spied([])
    sides: dict[int, str] = {}

    def spy(owner: type, name: str, keep: Callable[..., Any]) -> None:
        method = getattr(owner, name)

        def seen(self: Any, *arguments: Any) -> Any:
            known = [other for other in sides if other[0] == owner]
            side = sides.setdefault((owner, id(self)), ("users", "items")[len(known) % 2])
            result = method(self, *arguments)
            spied.calls.append((name, side, keep(result, *arguments)))
            return result

        patch.setattr(owner, name, seen)

    # That nothing is called is what some tests look for.
    with pytest.MonkeyPatch.context() as patch:
        spy(Replay, "add", lambda _, columns, label=0: ({k: v.copy() for k, v in columns.items()}, label))
        spy(TD3, "update", lambda _, states, actions, rewards, after, *__: (states, actions, rewards, after))
        spy(TD3, "act", lambda actions, _: actions.copy())
        yield spied
