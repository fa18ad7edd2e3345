"""A compressed table: what a fit leaves behind, small on disk, and what it recommends.

What is in the folder of a saved one is in `folder`.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from scipy.sparse import csr_matrix

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions, Pairs
from ciess.devices import cpu_threads
from ciess.errors import ArtifactError, InputError
from ciess.masks.mask import Mask
from ciess.masks.ragged import kept_entries, to_csr, to_dense
from ciess.storage.storage import Storage
from ciess.tables.card import describe, write_files
from ciess.tables.folder import read_folder, to_files
from ciess.tables.serving import Codes, Recommendations, find_codes, rank
from ciess.tables.trained import TrainedTable
from ciess.training.fit import FitResult

Floats = npt.NDArray[np.float32]


class CompressedTable(TrainedTable):
    """A trained table that is built from a fit, saved, loaded, and asked for recommendations.

    Attributes and errors of its parts are those of `TrainedTable`.
    """

    @classmethod
    def from_fit(
        cls,
        data: Interactions,
        trained_on: Interactions,
        config: RecommenderConfig,
        mask: Mask,
        result: FitResult,
        card: Mapping[str, Any],
    ) -> "CompressedTable":
        """The table of a finished fit.

        Args:
            data: the data with its splits: ids, and all known interactions.
            trained_on: what the fit was given: data, or data.merged() for a refit.
            config: of the fit.
            mask: of the fit.
            result: of the fit; its table is float32[n, tables * mask.width].
            card: what else the card shall say, JSON values: method, target_sparsity, seed, metrics, ...

        Returns:
            the table.

        Raises:
            ArtifactError: the table is not that of the mask, or the card says what is counted here.
        """
        config = config.recommender()
        kept = kept_entries(mask, result.recommender.backbone.tables, mask.width)
        if result.table.shape != kept.shape:
            raise ArtifactError(
                f"The table of the fit has the shape {result.table.shape}, but its mask asks for {kept.shape}. "
                "Give the mask that the fit was given."
            )
        stray = int(np.count_nonzero(result.table[~kept]))
        if stray:
            raise ArtifactError(
                f"The table of the fit has {stray:,} values that are not zero where its mask keeps none; none were "
                "expected. Give the mask that the fit was given."
            )
        known = data.train + data.valid + data.test
        decoder = sum(value.nbytes for name, value in result.weights.items() if name.startswith("decoder."))
        own = describe(data, config, mask, result.recommender, len(trained_on.train), len(known), decoder)
        if clash := sorted(own.keys() & card.keys()):
            raise ArtifactError(
                f"The card was given {', '.join(clash)}, but ciess states these itself. Leave them out of card=."
            )
        return cls(
            config=config,
            mask=mask,
            values=result.table[kept],
            weights=dict(result.weights),
            user_ids=data.user_ids,
            item_ids=data.item_ids,
            graph_pairs=trained_on.train,
            known_pairs=known,
            card=json.loads(json.dumps({**own, **card})),
        )

    def save(self, folder: str | Path | Storage) -> None:
        """Write the folder; a table that was there is replaced.

        Args:
            folder: a path or a URI.

        Raises:
            RunDirectoryError: it cannot be written; what is left then has no card and does not load.
        """
        storage = folder if isinstance(folder, Storage) else Storage(folder)
        contents = to_files(self, self.mask, self.values, self.weights, self.known_pairs, self._in_graph)
        write_files(storage, contents, self.card)

    @classmethod
    def load(cls, folder: str | Path | Storage, device: str = "cpu") -> "CompressedTable":
        """Read a saved table, as the function `load` does.

        Args:
            folder: of the table, a path or a URI.
            device: where scores are computed.

        Returns:
            the table.

        Raises:
            ArtifactError: the card or a file is missing, a byte has changed, or the format is newer.
            InputError: the device is not there.
        """
        storage = folder if isinstance(folder, Storage) else Storage(folder)
        return cls(**read_folder(storage), device=device)

    def recommend(
        self,
        user: str | int | None = None,
        k: int = 10,
        include_seen: bool = False,
        history: Sequence[str | int] | pa.Array | None = None,
    ) -> Recommendations:
        """The k best items for a user, or for anyone who has liked the items of a history.

        Args:
            user: an original id; `"42"` finds the number 42.
            k: most items to give; fewer where fewer are left.
            include_seen: whether known items are given, too.
            history: original ids of items, in place of a user: one who was never seen is served by them, where the
                backbone makes a user of its history (lightgcn, items). An item counts once.

        Returns:
            items, best first, and their scores float32[items].

        Raises:
            InputError: an unknown user or item, k < 1, not one of user and history, an empty history, or a backbone
                that cannot be given one.
        """
        if (user is None) == (history is None):
            found = "neither a user nor a history" if user is None else "both a user and a history"
            raise InputError(f"Found {found}. Expected one of the two. Give user=, or history= with ids of items.")
        if history is not None:
            items, scores = self._rank_history(np.unique(find_codes(self.item_ids, history, "item")), k, include_seen)
        else:
            assert user is not None
            items, scores = self._rank(find_codes(self.user_ids, [user], "user"), k, include_seen)
        left = items[0] >= 0
        return Recommendations(self.item_ids.take(pa.array(items[0][left])).to_pylist(), scores[0][left])

    def recommend_many(
        self, users: Sequence[str | int] | pa.Array | None = None, k: int = 10, include_seen: bool = False
    ) -> pa.Table:
        """The lists of many users: a row an item, users in the order given, best item first.

        Scores may differ in the last bits from `recommend`, as a block of users is multiplied in another order than
        one user.

        Args:
            users: original ids, by default all.
            k: most items a user.
            include_seen: whether known items are given, too.

        Returns:
            columns user_id, rank (int32, from 1), item_id, score (float32).

        Raises:
            InputError: an unknown user, or k < 1.
        """
        codes = np.arange(self.n_users) if users is None else find_codes(self.user_ids, users, "user")
        items, scores = self._rank(codes, k, include_seen)
        row, position = np.nonzero(items >= 0)
        return pa.table(
            {
                "user_id": self.user_ids.take(pa.array(codes[row])),
                "rank": pa.array((position + 1).astype(np.int32)),
                "item_id": self.item_ids.take(pa.array(items[row, position])),
                "score": pa.array(scores[row, position]),
            }
        )

    def scores(self, users: npt.NDArray[np.integer] | Sequence[int]) -> Floats:
        """y_uv of Eq. 3: on a CPU, the bits of the trained model.

        Args:
            users: codes int[b].

        Returns:
            float32[b, n_items].
        """
        codes = torch.as_tensor(np.asarray(users, dtype=np.int64))
        with cpu_threads(self.config.threads):
            scores: Floats = self.recommender.score_users(codes.to(self.recommender.encoded.device)).cpu().numpy()
        return scores

    def vectors(self) -> Floats:
        """Encoded vectors: what scores are computed from.

        For LightGCN and NGCF a score is the dot product of two of them, so these rows are what a search engine wants.

        Returns:
            float32[n, w], users first.
        """
        vectors: Floats = self.recommender.encoded.cpu().numpy()
        return vectors

    def users(self, ids: Sequence[str | int] | pa.Array) -> Floats:
        """Rows of the table for users, as they are stored: before propagation.

        Args:
            ids: original ids.

        Returns:
            float32[len(ids), tables * max_size].

        Raises:
            InputError: an unknown user.
        """
        rows: Floats = self.to_csr()[find_codes(self.user_ids, ids, "user")].toarray()
        return rows

    def items(self, ids: Sequence[str | int] | pa.Array) -> Floats:
        """Rows of the table for items, as they are stored: before propagation.

        Args:
            ids: original ids.

        Returns:
            float32[len(ids), tables * max_size].

        Raises:
            InputError: an unknown item.
        """
        rows: Floats = self.to_csr()[self.n_users + find_codes(self.item_ids, ids, "item")].toarray()
        return rows

    def to_dense(self) -> Floats:
        """E o M of Eq. 1, zero where nothing is kept; rows before a decoder, if any.

        Returns:
            float32[n, tables * max_size].
        """
        return to_dense(self.values, self.mask, self._backbone.tables, self.config.max_size)

    def to_csr(self) -> csr_matrix:
        """E o M of Eq. 1 in CSR form; kept values that are zero are stored, too.

        Returns:
            sparse float32[n, tables * max_size].
        """
        return to_csr(self.values, self.mask, self._backbone.tables)

    @cached_property
    def _known_indptr(self) -> Codes:
        return self.known_pairs.indptr(self.n_users)

    def _rank_history(self, codes: Codes, k: int, include_seen: bool) -> tuple[Codes, Floats]:
        """As `_rank`, for one user who has the items of int64[m] codes, each once."""
        if not len(codes):
            raise InputError("The history is empty, but one item or more was expected. Give ids of items.")
        backbone, table, graph = self._parts
        items = torch.from_numpy(codes).to(table.device)
        with cpu_threads(self.config.threads), torch.no_grad():
            vector = backbone.from_history(table, graph, items)
            if vector is None:
                raise InputError(
                    f"This table is of {self.config.backbone}, which has no vector for a user outside its training. "
                    "Expected a table of lightgcn or items. Give a user= of the training data."
                )
            scores = vector[None] @ self.recommender.encoded[self.n_users :].T
            one = np.zeros(1, np.int64)
            known = Pairs(np.zeros(len(codes), np.int32), codes.astype(np.int32))
            seen = None if include_seen else (known, np.array([0, len(codes)], np.int64))
            return rank(lambda _: scores.clone(), one, k, self.n_items, scores.device, seen)

    def _rank(self, users: Codes, k: int, include_seen: bool) -> tuple[Codes, Floats]:
        with cpu_threads(self.config.threads):
            return rank(
                self.recommender.score_users,
                users,
                k,
                self.n_items,
                self.recommender.encoded.device,
                None if include_seen else (self.known_pairs, self._known_indptr),
                self._backbone.floats_per_score,
            )


def load(folder: str | Path | Storage, device: str = "cpu") -> CompressedTable:
    """Read a saved table.

    Args:
        folder: of the table, a path or a URI, such as runs/es/tables/equal-c90-s0.
        device: where scores are computed.

    Returns:
        the table.

    Raises:
        ArtifactError: the card or a file is missing, a byte has changed, or the format is newer.
        InputError: the device is not there.
    """
    return CompressedTable.load(folder, device)
