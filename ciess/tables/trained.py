"""The parts of a trained table, checked against each other, and the model that they make."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ciess.config.recommender import RecommenderConfig
from ciess.data import Pairs
from ciess.data.row_counts import RowCounts
from ciess.devices import cpu_threads, resolve_device
from ciess.errors import ArtifactError, InputError
from ciess.masks.mask import Mask, stored_side
from ciess.masks.ragged import kept_entries, rows_of, to_dense
from ciess.models import BACKBONES, Backbone
from ciess.models.chained_embedding import decoded
from ciess.models.graph import Graph
from ciess.models.history import build_graph
from ciess.training.loop import Recommender

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainedTable(RowCounts):
    """The kept values of a trained table with all that is needed to recommend from them.

    Attributes:
        config: of the fit.
        mask: which entries are kept, over n rows, users first.
        values: float32[kept], in row order; in a row table by table, in a table by column.
        weights: the backbone's other parameters by name.
        user_ids: n_users original ids, position = code.
        item_ids: n_items original ids, position = code.
        graph_pairs: interactions the model was trained on, the edges of its graph; a part of known_pairs.
        known_pairs: all interactions known of each user, also those held out for the test.
        card: what card.json says beside checksums; JSON values.
        device: where scores are computed: `cpu`, `cuda`, `cuda:1`, ... or `auto`.

    Raises:
        ArtifactError: the parts do not fit together.
        InputError: the device is not there.
    """

    config: RecommenderConfig
    mask: Mask
    values: Floats
    weights: dict[str, Floats]
    user_ids: pa.Array
    item_ids: pa.Array
    graph_pairs: Pairs
    known_pairs: Pairs
    card: dict[str, Any]
    device: str = "cpu"

    def __post_init__(self) -> None:
        resolve_device(self.device)
        expected = {name: tuple(value.shape) for name, value in self._backbone.named_parameters()}
        found = {name: value.shape for name, value in self.weights.items() if name not in self._decoder}
        if found != expected:
            raise ArtifactError(
                f"The parameters of the {self.config.backbone} have the shapes {found}, but its config asks for "
                f"{expected}. Build the table from one fit and its own config."
            )
        self._backbone.adapt(self.graph_pairs.degrees(self.n_users, self.n_items))
        with torch.no_grad():
            for name, parameter in self._backbone.named_parameters():
                parameter.copy_(torch.tensor(self.weights[name]))
        kept = kept_entries(self.mask, self._backbone.tables, self.config.max_size)
        found_sizes = (rows_of(self.mask), self.mask.max_size, len(self.values))
        sizes = (self.n, self.config.max_size, int(kept.sum()))
        if found_sizes != sizes:
            raise ArtifactError(
                "Found a mask of {:,} rows with up to {} columns, and {:,} values; ".format(*found_sizes)
                + "{:,} rows with up to {} columns, and {:,} values were expected. ".format(*sizes)
                + "Build the table from one fit, its own mask and its own data."
            )
        found_pairs = int(self._in_graph.sum())
        if found_pairs != len(self.graph_pairs):
            raise ArtifactError(
                f"Only {found_pairs:,} of the {len(self.graph_pairs):,} interactions that the model was trained on are "
                "among the known ones; all were expected. Build the table from the data of the fit."
            )

    @cached_property
    def recommender(self) -> Recommender:
        """The trained model, encoded on its graph when first asked for."""
        backbone, table, graph = self._parts
        with cpu_threads(self.config.threads), torch.no_grad():
            return Recommender(backbone, backbone.encode(table, graph))

    @cached_property
    def _parts(self) -> tuple[Backbone, torch.Tensor, Graph | None]:
        """The backbone, the table float32[n, tables * width] and the graph that it is encoded on."""
        device = resolve_device(self.device)
        backbone = self._backbone.to(device)
        if not self._decoder:
            backbone.stored_side = stored_side(self.mask, self.n_users)
        with cpu_threads(self.config.threads), torch.no_grad():
            # As many columns as the fit had: the kernels, and so the bits, depend on the width.
            table = torch.from_numpy(to_dense(self.values, self.mask, backbone.tables, self.mask.width))
            if self._decoder:
                try:
                    table = decoded(table, self.mask, backbone.tables, self._decoder, self.n_users, device)
                except InputError as error:
                    raise ArtifactError(f"The table cannot be decoded. {error}") from error
            table = table.to(device)
            graph = None
            if backbone.normalisation is not None:
                graph = build_graph(self.graph_pairs, self.n_users, self.n_items, backbone.normalisation).to(device)
            return backbone, table, graph

    @property
    def _decoder(self) -> dict[str, torch.Tensor]:
        """Weights of the chain that maps rows to one size; none of a plain table."""
        return {name: torch.tensor(value) for name, value in self.weights.items() if name.startswith("decoder.")}

    @cached_property
    def _backbone(self) -> Backbone:
        config = self.config
        return BACKBONES[config.backbone](config.model, self.n_users, self.n_items, config.max_size).eval()

    @cached_property
    def _in_graph(self) -> npt.NDArray[np.bool_]:
        """bool[known pairs]: the model was trained on it."""
        known, graph = (
            pairs.users.astype(np.int64) * self.n_items + pairs.items for pairs in (self.known_pairs, self.graph_pairs)
        )
        # Both are sorted.
        place = np.searchsorted(graph, known)
        found: npt.NDArray[np.bool_] = np.append(graph, -1)[place] == known
        return found
