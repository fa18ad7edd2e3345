from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors

from ciess.config.recommender import RecommenderConfig
from ciess.data import Interactions
from ciess.errors import ArtifactError
from ciess.masks.budget import sparsity
from ciess.masks.mask import SparseMask
from ciess.provenance import versions
from ciess.tables.table import CompressedTable, load
from ciess.training.fit import fit
from ciess.training.loop import FitRequest

MAX_SIZE = 16


def header_bytes(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


class TestBytes:
    def test_a_prefix_table_is_4_bytes_a_value_and_2_a_row(
        self, trained: Any, backbone: str, tmp_path: Path, card_of: Callable[[Path], dict[str, Any]]
    ) -> None:
        table, _, mask = trained(backbone, "prefix")
        table.save(tmp_path)
        path = tmp_path / "weights.safetensors"
        kept = int(mask.sizes.sum()) * (2 if backbone == "ncf" else 1)
        assert path.stat().st_size == 4 * kept + 2 * table.n + header_bytes(path)
        assert card_of(tmp_path)["bytes"]["table"] == 4 * kept + 2 * table.n
        assert card_of(tmp_path)["files"]["weights.safetensors"]["bytes"] == path.stat().st_size

    def test_a_sparse_table_is_5_bytes_a_value_and_4_a_row(
        self, trained: Any, backbone: str, tmp_path: Path, card_of: Callable[[Path], dict[str, Any]]
    ) -> None:
        table, _, mask = trained(backbone, "sparse")
        table.save(tmp_path)
        path = tmp_path / "weights.safetensors"
        assert path.stat().st_size == 5 * mask.kept + 4 * (table.n + 1) + header_bytes(path)
        assert card_of(tmp_path)["bytes"]["table"] == 5 * mask.kept + 4 * (table.n + 1)

    def test_columns_above_256_take_2_bytes(self, data: Interactions, small_config: Any, tmp_path: Path) -> None:
        kept = np.zeros((data.n, 2 * 160), np.bool_)
        kept[:, [0, 159, 160, 319]] = True
        mask, config = SparseMask.from_dense(kept, 160), small_config("ncf", max_size=160)
        result = fit(data, FitRequest(config, mask, seed=0, epochs=1, evaluate=False))
        CompressedTable.from_fit(data, data, config, mask, result, {}).save(tmp_path)
        content = (tmp_path / "weights.safetensors").read_bytes()
        assert load_tensors(content)["columns"].dtype == np.int16
        np.testing.assert_array_equal(load(tmp_path).to_dense() != 0, kept)

    def test_the_card_states_each_cost_apart(self, trained: Any, backbone: str) -> None:
        table, result, _ = trained(backbone, "prefix")
        found, n = table.card["bytes"], table.n
        # NGCF: two matrices and two biases a layer. NCF: halves of the first layer, its bias, one layer, two outputs.
        ngcf = 4 * 2 * (MAX_SIZE * 12 + 2 * 12 * 12 + 3 * 12)
        scoring = 4 * (16 * 8 + 8 + MAX_SIZE + 8)
        ncf = 4 * (2 * MAX_SIZE * 16 + 16) + scoring
        assert (
            found["dense_parameters"] == {"lightgcn": 0, "ngcf": ngcf, "ncf": ncf, "items": 8 * table.n_items}[backbone]
        )
        assert found["edges"] == (0 if backbone == "ncf" else 8 * len(table.graph_pairs))
        assert found["known_pairs"] == 8 * len(table.known_pairs)
        vectors = 4 * n * result.recommender.encoded.shape[1]
        assert found["serving"] == vectors + (scoring if backbone == "ncf" else 0)
        assert found["full_table"] == 4 * n * MAX_SIZE * (2 if backbone == "ncf" else 1)


class TestCard:
    def test_counts_come_from_the_mask(self, trained: Any, backbone: str, kind: str) -> None:
        table, _, mask = trained(backbone, kind)
        card = table.card
        assert card["kept_parameters"] == len(table.values)
        assert card["kept_share"] == f"{len(table.values)}/{card['full_parameters']}"
        assert 1 - Fraction(card["kept_share"]) == sparsity(mask)
        assert card["sparsity"] == float(sparsity(mask))

    def test_it_says_where_the_table_comes_from(
        self, folder: Path, data: Interactions, trained: Any, card_of: Callable[[Path], dict[str, Any]]
    ) -> None:
        card = card_of(folder)
        assert card["format"] == 1
        assert card["dataset"] == "planted"
        assert card["data_sha256"] == data.sha256
        assert card["split_seed"] == 0
        assert RecommenderConfig(**card["config"]) == trained("ncf", "prefix")[0].config
        assert (card["method"], card["seed"], card["test"]) == ("equal", 3, {"Recall@20": 0.1 + 0.2})
        assert card["versions"] == versions()
        assert set(versions()) >= {"python", "torch", "numpy", "pyarrow", "safetensors", "ciess"}
        assert all(version[0].isdigit() for version in versions().values())

    def test_what_is_counted_cannot_be_claimed(self, data: Interactions, trained: Any) -> None:
        table, result, mask = trained("lightgcn", "prefix")
        with pytest.raises(ArtifactError, match=r"^The card was given sparsity, but ciess states these itself\. Leave"):
            CompressedTable.from_fit(data, data.merged(), table.config, mask, result, {"sparsity": 0.9})
