import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciess.data import Interactions
from ciess.errors import ArtifactError, InputError, RunDirectoryError
from ciess.masks.mask import PrefixMask
from ciess.provenance import versions
from ciess.storage.storage import Storage
from ciess.tables.card import CARD, content_sha256
from ciess.tables.table import CompressedTable, load

MAX_SIZE = 16
FILES = ["edges.parquet", "ids.parquet", "model.safetensors", "weights.safetensors"]


def write_card(folder: Path, card: dict[str, Any]) -> None:
    (folder / CARD).write_text(json.dumps(card | {"card_sha256": content_sha256(card)}))


class TestBadInput:
    @pytest.mark.parametrize("name", FILES)
    def test_a_changed_byte(self, folder: Path, name: str) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(ArtifactError) as error:
            load(folder)
        assert str(error.value) == (
            f"{folder / name} is not as it was saved: its content does not have the sha256 that card.json holds for "
            "it, so a byte has changed. Copy the folder again from where it was saved, or save the table again."
        )

    @pytest.mark.parametrize(
        ("old", "new"),
        [('"seed": 3', '"seed": 4'), ('"format": 1', '"formal": 1'), ("{", "("), ('"format": 1', '"format": 0')],
    )
    def test_a_changed_byte_in_the_card(self, folder: Path, old: str, new: str) -> None:
        text = (folder / CARD).read_text()
        assert old in text
        (folder / CARD).write_text(text.replace(old, new, 1))
        with pytest.raises(ArtifactError, match=r"card\.json is not as it was saved: .* a byte has changed\. Copy the"):
            load(folder)

    @pytest.mark.parametrize("content", [b"", b"[]", b"3", b"null", b"\xff\xfe", b"{}"])
    def test_a_card_that_is_none(self, folder: Path, content: bytes) -> None:
        (folder / CARD).write_bytes(content)
        with pytest.raises(ArtifactError, match=r"card\.json is not as it was saved"):
            load(folder)

    def test_a_card_may_be_laid_out_anew(self, folder: Path, card_of: Callable[[Path], dict[str, Any]]) -> None:
        (folder / CARD).write_text(json.dumps(card_of(folder), sort_keys=True))
        assert load(folder).n_users == 48

    def test_a_newer_format(self, folder: Path) -> None:
        (folder / CARD).write_text(json.dumps({"format": 2, "versions": {"ciess": "9.1"}}))
        with pytest.raises(ArtifactError) as error:
            load(folder)
        assert str(error.value) == (
            f"{folder / CARD} is of format 2, but this version of ciess ({versions()['ciess']}) understands formats up "
            "to 1. Upgrade ciess, for instance to the version that saved the table: 9.1."
        )

    def test_a_setting_of_another_version(self, folder: Path, card_of: Callable[[Path], dict[str, Any]]) -> None:
        card = card_of(folder)
        card["config"]["model"]["attention"] = True
        write_card(folder, card)
        with pytest.raises(ArtifactError) as error:
            load(folder)
        assert str(error.value).startswith(f"The config in {folder / CARD} is not one of ciess {versions()['ciess']}: ")
        assert "attention: Extra inputs are not permitted" in str(error.value)
        assert str(error.value).endswith(f"saved by ciess {versions()['ciess']}: install that version to read it.")

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(ArtifactError) as error:
            load(folder)
        assert str(error.value) == (
            f"{folder / name} is missing, but the card.json beside it lists it. Copy the whole folder again from where "
            "it was saved, or save the table again."
        )

    def test_a_device_that_is_none(self, folder: Path) -> None:
        assert load(folder, device="auto").recommend(100, k=1).items
        with pytest.raises(InputError, match=r"^The device is 'tpx', but auto, cpu, cuda or cuda:N was expected"):
            load(folder, device="tpx")

    def test_no_table(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError) as error:
            load(tmp_path / "nothing")
        assert str(error.value) == (
            f"{tmp_path / 'nothing'} holds no card.json, but a saved table was expected: its card is written last. "
            "Give the folder of a table, such as runs/a/tables/equal-c90-s0; if this is one, its saving was cut short: "
            "save it again."
        )

    @pytest.mark.parametrize("last", [*FILES, CARD])
    @pytest.mark.parametrize("over_another", [False, True])
    def test_a_save_that_was_cut_short_does_not_load(
        self, trained: Any, folder: Path, tmp_path: Path, last: str, over_another: bool
    ) -> None:
        class Full(Storage):
            def write_bytes(self, name: str, content: bytes) -> None:
                if name == last:
                    raise RunDirectoryError("no space")
                super().write_bytes(name, content)

        if not over_another:
            shutil.rmtree(folder)
        with pytest.raises(RunDirectoryError, match="no space"):
            trained("ngcf", "sparse")[0].save(Full(folder))
        with pytest.raises(ArtifactError, match=r"holds no card\.json"):
            load(folder)

    def test_parts_that_do_not_fit(self, trained: Any, data: Interactions) -> None:
        table, result, mask = trained("ngcf", "prefix")
        merged, wider = data.merged(), PrefixMask(np.full(data.n, MAX_SIZE, np.int16), MAX_SIZE)
        narrower = PrefixMask(np.where(np.arange(data.n) == np.argmax(mask.sizes), mask.sizes, 1), MAX_SIZE)
        with pytest.raises(
            ArtifactError, match=r"^The table of the fit has the shape .* asks for \(\d+, 16\)\. Give the mask"
        ):
            CompressedTable.from_fit(data, merged, table.config, wider, result, {})
        with pytest.raises(
            ArtifactError, match=r" values that are not zero where its mask keeps none; none .* Give the mask"
        ):
            CompressedTable.from_fit(data, merged, table.config, narrower, result, {})
        with pytest.raises(
            ArtifactError, match=r"^The parameters of the ngcf have the shapes {}, but .* from one fit and"
        ):
            dataclasses.replace(table, weights={})
        with pytest.raises(
            ArtifactError, match=r"^Found a mask of \d+ rows .* up to 16 columns, and 7 values; .* expected"
        ):
            dataclasses.replace(table, values=table.values[:7])
        with pytest.raises(
            ArtifactError, match=r"^Only 0 of the \d+ interactions that .* Build the table from the data"
        ):
            dataclasses.replace(table, known_pairs=data.test)
        assert math.isclose(float(result.table[mask.dense(mask.width)].sum()), float(table.values.sum()), rel_tol=1e-4)


def test_a_run_directory_is_answered_with_its_tables(tmp_path: Path) -> None:
    for name in ("ciess-c90-s0", "equal-c90-s0"):
        (tmp_path / "tables" / name).mkdir(parents=True)
    with pytest.raises(ArtifactError) as caught:
        load(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} is a run directory, but the folder of one of its tables was expected. Give one of: "
        f"{tmp_path}/tables/ciess-c90-s0, {tmp_path}/tables/equal-c90-s0."
    )
