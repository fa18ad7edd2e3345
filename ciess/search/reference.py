"""The reference: the full-size, fully trained model whose quality divides in Eq. 7."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.torch import load, save
from torch import Tensor

from ciess import masks
from ciess.config.recommender import RecommenderConfig
from ciess.config.search import SearchConfig
from ciess.config.starts import StartedConfig
from ciess.data import Interactions
from ciess.errors import RunDirectoryError
from ciess.evaluation.metrics import item_quality
from ciess.search.environment import Environment
from ciess.search.traits import row_traits
from ciess.storage.columns import ENTITY_QUALITY
from ciess.storage.storage import Storage, read_columns
from ciess.tables.protocol import train_and_choose
from ciess.tables.references import weights_of_result
from ciess.tables.spec import TableSpec
from ciess.tables.trials import Trial, training_fingerprint
from ciess.training.fit import fit
from ciess.training.history import EpochRecord, history_table, read_history
from ciess.training.loop import FitRequest
from ciess.training.starts.start import FRESH

FILES = ("quality.parquet", "weights.safetensors", "history.parquet")
"""Of a folder with a reference, beside metrics.json, which is written last."""

REFERENCE_ADVICE = "Restore the file, or delete the folder to train the reference again."
"""About a file of it that cannot be used."""


@dataclass(frozen=True, eq=False)
class Reference:
    """eval(e_n | E) of Eq. 7 on validation: float32[n], users (Eq. 8) first, then items (Eq. 9).

    Attributes:
        counted: bool[n], users with a validation item and items with a training user; elsewhere quality is 0.
        metrics: validation means by name, `quality` among them.
        epochs: the best epoch.
        history: every epoch of its training.
        seconds: what that took.
        weights: `table`, float32[n, tables, max_size], and the backbone's other parameters by name.
        trial: the start and the training that validation chose.
    """

    quality: npt.NDArray[np.float32]
    counted: npt.NDArray[np.bool_]
    metrics: dict[str, float]
    epochs: int
    history: tuple[EpochRecord, ...]
    seconds: float
    weights: Mapping[str, Tensor]
    trial: Trial


def train_reference(
    data: Interactions,
    config: RecommenderConfig,
    seed: int,
    folder: Storage,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Reference:
    """Train the reference, or read it where this folder already holds it.

    Raises:
        RunDirectoryError: a folder that holds the reference of other data, backbone settings or seed.
    """
    config = config.of_reference() if isinstance(config, StartedConfig) else config
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    spec = TableSpec("reference", masks.full(data.n, config.max_size, bounds), seed)
    fingerprint = training_fingerprint(data, config, FitRequest(config, spec.mask, seed))
    if folder.exists("metrics.json"):
        found = folder.read_json("metrics.json")
        if found["fingerprint"] != fingerprint:
            raise RunDirectoryError(
                f"{folder.root} holds the reference of other data, backbone settings or seed (fingerprint "
                f"{found['fingerprint'][:12]}, expected {fingerprint[:12]}). Choose another folder or delete this one."
            )
        table = read_columns(folder, "quality.parquet", ENTITY_QUALITY, REFERENCE_ADVICE)
        return Reference(
            table["quality"].to_numpy(),
            table["counted"].to_numpy(zero_copy_only=False),
            found["metrics"],
            found["epochs"],
            read_history(folder, REFERENCE_ADVICE),
            found["seconds"],
            load(folder.read_bytes("weights.safetensors")),
            Trial.of(found, config, len(data.train)) if "start" in found else Trial(FRESH, config.training),
        )
    each = None if on_epoch is None else lambda name, stage, record: on_epoch(record)
    chosen = train_and_choose(data, spec, config, folder.child("progress"), each, stage=None)
    result = chosen.result
    assert result is not None and result.validation is not None and chosen.trial is not None
    users = chosen.user_quality
    items, rated = item_quality(users, data.train, data.n_items)
    quality = np.concatenate([users, items])
    counted = np.concatenate([result.validation.counted, rated])
    side = np.repeat(["user", "item"], [data.n_users, data.n_items])
    code = np.concatenate([np.arange(data.n_users), np.arange(data.n_items)])
    folder.write_table(
        "quality.parquet", pa.table({"side": side, "code": code, "quality": quality, "counted": counted})
    )
    weights = weights_of_result(result, data.n, config.max_size)
    folder.write_bytes("weights.safetensors", save(weights))
    folder.write_table("history.parquet", history_table(chosen.history))
    about = {"fingerprint": fingerprint, "metrics": chosen.means, "epochs": chosen.epoch, "seed": seed}
    folder.write_json("metrics.json", about | {"seconds": chosen.seconds} | chosen.trial.described())
    folder.child("progress").delete()
    return Reference(
        quality, counted, chosen.means, chosen.epoch, chosen.history, chosen.seconds, weights, chosen.trial
    )


def read_lent_reference(data: Interactions, config: RecommenderConfig, seed: int, source: Storage) -> dict[str, bytes]:
    """The files of another run's reference by name, metrics.json last.

    Args:
        data: interactions with n users and items.
        config: settings of the recommender.
        seed: of the training.
        source: that run's directory, or its folder `reference`.

    Raises:
        RunDirectoryError: there is none, or one of other data, backbone settings or seed.
    """
    found = source if source.exists("metrics.json") else source.child("reference")
    if not found.exists("metrics.json"):
        raise RunDirectoryError(
            f"{source.root} holds no finished reference: neither it nor its folder reference has a metrics.json. "
            "Expected a run directory of `ciess search`. Check the path, or leave --reference-from out to train one."
        )
    train_reference(data, config, seed, found)
    return {name: found.read_bytes(name) for name in (*FILES, "metrics.json")}


def environment_of(data: Interactions, config: SearchConfig, found: Reference, half: int = 0) -> Environment:
    """The environment that a search of this config sees, or by which its masks are chosen.

    Args:
        data: interactions with a validation part.
        config: settings of the search.
        found: its reference.
        half: where validation is cut, 0 for the pairs that are searched by and 1 for those that are chosen by.

    Returns:
        the environment; of strategies that judge by a sample of users, that sample alone counts as it searches.
    """
    quality, counted = found.quality, found.counted
    sample = config.evaluate_users if config.strategy == "td3" or half else config.kinds.judged_users
    if config.halves or (sample != config.evaluate_users and (sample or 0) < data.n_users):
        quality, counted = _reference_on(data, config, found, half, sample)
    traits, rich = None, config.strategy == "td3" and config.agent.state == "rich"
    by_kind = config.strategy != "td3" or config.agent.begin == "kinds"
    # Masks are proposed from these; by the other half they are only chosen.
    if not half and (rich or (by_kind and config.kinds.traits)):
        density = 1 - sum(config.budgets) / len(config.budgets)
        traits = row_traits(data, found.weights["table"], quality, density)
    return Environment(
        data.train,
        data.n_users,
        data.n_items,
        config.max_size,
        quality,
        counted,
        config.zero_reference,
        masks.size_bounds(config, data.n_users, data.n_items),
        traits,
        rich,
    )


def _reference_on(
    data: Interactions, config: SearchConfig, found: Reference, half: int, sample: int | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Qualities of the reference and who they were measured for, on a half of validation or on all of it."""
    recommender = config.recommender().model_copy(update={"evaluate_users": sample})
    bounds = masks.size_bounds(config, data.n_users, data.n_items)
    mask = masks.full(data.n, config.max_size, bounds)
    request = FitRequest(recommender, mask, config.seed, epochs=0, initial=found.weights, halves=config.halves)
    metrics = fit(data, request).validation
    assert metrics is not None
    part = metrics.parts[half] if config.halves else metrics
    items, trained = item_quality(part.quality(), data.train, data.n_items)
    return np.concatenate([part.quality(), items]), np.concatenate([part.counted, trained])
