"""A search and its run directory, kept together: after every outcome the directory holds all that was found so far."""

import hashlib
import time

from ciess.config.earlier import unnamed
from ciess.config.search import SearchConfig
from ciess.data import Interactions
from ciess.search.candidates import to_table
from ciess.search.proposals import Outcome
from ciess.search.search import Search
from ciess.storage.checkpoint import load_checkpoint, save_checkpoint
from ciess.storage.storage import Storage


def search_fingerprint(data: Interactions, config: SearchConfig) -> str:
    """sha256 of what a checkpoint depends on; episodes or fits may grow, and devices are the affair of the run."""
    settings = config.model_dump_json(
        exclude=dict.fromkeys(("episodes", "fits", "device", "threads"), True) | unnamed(config)
    )
    return hashlib.sha256(f"{data.sha256} {data.split_seed} {settings}".encode()).hexdigest()


def write_visited(run: Storage, search: Search) -> None:
    """Write history.parquet and candidates.parquet as the search stands."""
    run.write_table("history.parquet", search.history)
    run.write_table("candidates.parquet", to_table(search.visited, search.environment.n))


class Recorder:
    """Tells outcomes to a search and writes checkpoint and history of it, whoever drives it."""

    def __init__(self, search: Search, run: Storage, fingerprint: str) -> None:
        search.run = run
        self.search, self.run, self.fingerprint = search, run, fingerprint
        self.folder = run.child("checkpoint")
        self._seconds = 0.0

    def restore(self) -> list[str]:
        """Go on from the last checkpoint where there is one; returns what is wrong with later ones.

        Raises:
            RunDirectoryError: as `load_checkpoint` does.
        """
        state, notes = load_checkpoint(self.folder, self.fingerprint)
        if state is not None:
            self.search.load_state_dict(state)
            write_visited(self.run, self.search)
        return notes

    def tell(self, outcome: Outcome) -> bool:
        """Tell an outcome and write what it changed.

        Args:
            outcome: what a fit found.

        Returns:
            whether it completed a round.

        Raises:
            SearchError: as `Search.tell` raises it.
            FitError: as `Search.tell` raises it.
            RunDirectoryError: nothing can be written.
        """
        search = self.search
        if not search.tell(outcome):
            return False
        start = time.perf_counter()
        save_checkpoint(self.folder, search.fits_done, search.state_dict(), self.fingerprint)
        self._seconds += time.perf_counter() - start
        completed = not search.mid_round
        if completed:
            search.record_checkpoint(self._seconds)
            self._seconds = 0.0
            self.run.write_table("history.parquet", search.history)
        return completed

    def finish(self) -> None:
        """Write history and masks as they stand."""
        write_visited(self.run, self.search)
