"""Where a learned method goes on from after an interruption, and to whom it says how far it is."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ciess.storage.storage import Storage
from ciess.training.checkpoint import TensorCheckpoint

Row = Mapping[str, int | float | str | None]
"""A line of a method's history: `stage` and `step`, and numbers."""


class Journal:
    """The stage in which a learned method finds its masks.

    rows: the history so far, those of earlier sittings included. seconds: of all sittings.
    """

    def __init__(
        self, folder: Storage | None = None, fingerprint: str = "", on_row: Callable[[Row], None] | None = None
    ) -> None:
        """folder: of the checkpoint, None for none. fingerprint: of all that the masks depend on."""
        self.files = None if folder is None else TensorCheckpoint(folder, fingerprint)
        self.on_row = on_row
        self.rows: list[Row] = []
        self._before, self._began = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return self._before + time.perf_counter() - self._began

    def note(self, **row: int | float | str | None) -> None:
        """Add a line to the history, and show it."""
        self.rows.append(row)
        if self.on_row is not None:
            self.on_row(row)

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint: tensors, and whatever JSON holds."""
        if self.files is not None:
            self.files.save(step, tensors, {"own": state, "rows": self.rows, "seconds": self.seconds})

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was saved last; rows and seconds go on from there.

        Returns:
            tensors and state, None for a fresh start.

        Raises:
            RunDirectoryError: the checkpoint is of other data or settings.
        """
        found = None if self.files is None else self.files.load()
        if found is None:
            return None
        tensors, state = found
        self.rows, self._before, self._began = state["rows"], state["seconds"], time.perf_counter()
        own: dict[str, Any] = state["own"]
        return tensors, own
