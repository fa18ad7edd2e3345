"""What a learned method has found, kept in a folder, so that it is learned once.

The folder holds

    outcome.json       budgets, seconds, and of each mask its budget, flag and what else the method says
    masks.safetensors  `<number>.sizes` of a PrefixMask, `<number>.columns` and `<number>.indptr` of a SparseMask, and
                       `<number>.initial.<name>` and `<number>.decoder.<name>` where training shall not start from
                       the seed
    history.parquet    how it went: what the method noted
    checkpoint/        of an unfinished stage, gone when it is done

and is complete once outcome.json is written.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import load, save

from ciess.config.fit import FitConfig
from ciess.data import Interactions
from ciess.errors import RunDirectoryError
from ciess.masks.ragged import kind, pattern, unpack
from ciess.methods import METHODS
from ciess.methods.journal import Journal, Row
from ciess.storage.storage import Storage
from ciess.tables.spec import TableSpec
from ciess.training.starts.start import Start

OUTCOME, MASKS, HISTORY = "outcome.json", "masks.safetensors", "history.parquet"


def holds_masks(folder: Storage, method: str, budgets: Sequence[Fraction]) -> bool:
    """Whether the folder holds a method's masks of all these budgets, of whatever data."""
    if not folder.exists(OUTCOME):
        return False
    found = {Fraction(budget) for budget in folder.read_json(OUTCOME)["budgets"]}
    return not METHODS[method].precise or set(budgets) <= found


@dataclass(frozen=True, eq=False)
class LearnedMasks:
    """The masks of a learned method and seed, in a folder of their own."""

    method: str
    data: Interactions
    config: FitConfig
    seed: int
    folder: Storage

    @property
    def name(self) -> str:
        """Such as `pep-s0`."""
        return f"{self.method}-s{self.seed}"

    def count(self, budgets: Sequence[Fraction]) -> int:
        """Tables that `learn` gives."""
        return len(budgets) if METHODS[self.method].precise else 1

    def learn(self, budgets: Sequence[Fraction], on_row: Callable[[Row], None] | None = None) -> list[TableSpec]:
        """The tables to train: one a budget, or one whatever the budgets where the sparsity is an outcome.

        What the folder holds already is read; an interrupted stage goes on. For a budget that it does not hold yet the
        method runs again; the masks of the others stay what they were. The method's own errors pass through.

        Args:
            budgets: sparsities asked for.
            on_row: called with each row of the history.

        Returns:
            tables of these budgets.

        Raises:
            RunDirectoryError: the folder holds masks of other data or settings.
        """
        if not self.known(budgets):
            precise = budgets if METHODS[self.method].precise else []
            wanted = list(dict.fromkeys([*self._budgets(), *precise]))
            journal = Journal(self.folder.child("checkpoint"), self._fingerprint, on_row)
            tables = METHODS[self.method].compress(self.data, self.config, wanted, self.seed, journal)
            # Where equal seeds do not give equal bits, on a GPU, tables may stand on the old masks already.
            before = {table.name: table for table in self.tables()} if self.ended else {}
            self._write(wanted, [before.get(table.name, table) for table in tables], journal)
        return [table for table in self.tables() if table.target_sparsity in (None, *budgets)]

    def known(self, budgets: Sequence[Fraction]) -> bool:
        """Whether the folder holds the masks of all these budgets.

        Args:
            budgets: sparsities asked for.

        Returns:
            whether nothing is left to learn for them.

        Raises:
            RunDirectoryError: the folder holds masks of other data or settings.
        """
        self._budgets()
        return holds_masks(self.folder, self.method, budgets)

    @property
    def _fingerprint(self) -> str:
        """sha256 of all that the masks depend on but code."""
        settings = getattr(self.config, self.method, None)
        own = {} if settings is None else settings.model_dump(mode="json")
        recommender = self.config.recommender().model_dump(mode="json", exclude={"threads", "device"})
        data = self.data
        content = [self.method, data.sha256, data.split_seed, len(data.train), self.seed, recommender, own]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _budgets(self) -> list[Fraction]:
        """Of the masks in the folder; none where the stage has not ended."""
        if not self.ended:
            return []
        found = self.folder.read_json(OUTCOME)
        if found["fingerprint"] != self._fingerprint:
            raise RunDirectoryError(
                f"{self.folder.root} holds masks that were learned from other data or settings (fingerprint "
                f"{found['fingerprint'][:12]}, expected {self._fingerprint[:12]}). Choose another --out, or start "
                "anew with --overwrite."
            )
        return [Fraction(budget) for budget in found["budgets"]]

    def _write(self, budgets: Sequence[Fraction], tables: Sequence[TableSpec], journal: Journal) -> None:
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        about = []
        for number, table in enumerate(tables):
            arrays |= {f"{number}.{part}": value for part, value in pattern(table.mask).items()}
            tensors = {f"initial.{name}": value for name, value in table.initial.items()} | dict(table.decoder)
            arrays |= {f"{number}.{name}": value.detach().cpu().numpy() for name, value in tensors.items()}
            about.append(
                {
                    "target_sparsity": None if table.target_sparsity is None else str(table.target_sparsity),
                    "flag": table.flag,
                    "variant": table.variant,
                    "mask": kind(table.mask),
                    "search": dict(table.search),
                    **({} if table.start is None else {"start": table.start.described()}),
                }
            )
        names = dict.fromkeys(name for row in journal.rows for name in row)
        history = [{name: row.get(name) for name in names} for row in journal.rows]
        outcome = {
            "fingerprint": self._fingerprint,
            "budgets": [str(budget) for budget in budgets],
            "seconds": journal.seconds,
            "tables": about,
        }
        self.folder.write_bytes(MASKS, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))
        self.folder.write_table(HISTORY, pa.Table.from_pylist(history))
        self.folder.write_json(OUTCOME, outcome)
        self.folder.child("checkpoint").delete()

    @property
    def ended(self) -> bool:
        """Whether the folder holds masks, of whatever budgets, data and settings."""
        return self.folder.exists(OUTCOME)

    def history(self) -> pa.Table:
        """What the method noted, once it has ended."""
        return self.folder.read_table(HISTORY)

    def tables(self) -> list[TableSpec]:
        """All that the folder holds, once the method has ended."""
        outcome, arrays = self.folder.read_json(OUTCOME), load(self.folder.read_bytes(MASKS))
        found = []
        for number, about in enumerate(outcome["tables"]):
            own = {name.partition(".")[2]: value for name, value in arrays.items() if name.startswith(f"{number}.")}
            tensors = {name: torch.from_numpy(own[name]) for name in own if name.startswith(("initial.", "decoder."))}
            found.append(
                TableSpec(
                    self.method,
                    unpack(about["mask"], own, self.config.max_size),
                    self.seed,
                    None if about["target_sparsity"] is None else Fraction(about["target_sparsity"]),
                    {name[8:]: value for name, value in tensors.items() if name.startswith("initial.")},
                    about["flag"],
                    about["variant"],
                    {**about["search"], "learning_seconds": outcome["seconds"]},
                    {name: value for name, value in tensors.items() if name.startswith("decoder.")},
                    start=Start(**about["start"]) if "start" in about else None,
                )
            )
        return found
