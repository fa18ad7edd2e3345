"""A stage of a sweep: its unfinished pieces as the trials of one Ray Tune experiment.

`Tuner.restore` is not used: it brings back the trials, limits and resources of the last sitting, while which masks are
retrained follows from what the searches have found, and the cluster may have changed. All that a piece goes on from
is in its own folder.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune import Callback, FailureConfig, PlacementGroupFactory, TuneConfig, Tuner

from ciess.cluster.shared_data import SharedData
from ciess.cluster.sweep.work import Work
from ciess.errors import CiessError
from ciess.storage.storage import Storage


@dataclass(frozen=True)
class TrialResources:
    """How the trials of a stage run.

    Attributes:
        resources: of each.
        concurrent: at a time.
        max_failures: see ClusterConfig.
    """

    resources: Mapping[str, float]
    concurrent: int
    max_failures: int


@dataclass(frozen=True)
class Sitting:
    """One run of the driver.

    Attributes:
        events: folder of Ray Tune's files.
        callbacks: further ones of Ray Tune's.
    """

    events: Storage
    callbacks: Sequence[Callback] = ()


def run_stage(
    name: str, work: Mapping[str, Work], shared: SharedData, trials: TrialResources, sitting: Sitting
) -> dict[str, str]:
    """Run what is not finished, in parallel; returns what went wrong by the name of the piece.

    What breaks down is kept from nobody else. A trial whose process or node was lost is started again.
    """
    left = {key: piece for key, piece in work.items() if not piece.finished}
    if len(left) < len(work):
        print(f"{name}: {len(work) - len(left)} of {len(work)} are finished already", flush=True)
    if not left:
        return {}
    for piece in left.values():
        # An earlier sitting's: this one tries again.
        piece.folder.delete("failure.json")
    print(f"{name}: {len(left)} trials, {min(trials.concurrent, len(left))} at a time", flush=True)
    tuner = Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, work=left, shared=shared),
            PlacementGroupFactory([dict(trials.resources)]),
        ),
        param_space={"trial": tune.grid_search(list(left))},
        tune_config=TuneConfig(
            max_concurrent_trials=trials.concurrent,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=f"{time.strftime('%Y%m%d-%H%M%S')}-{name}",
            storage_path=sitting.events.root,
            storage_filesystem=sitting.events.filesystem,
            failure_config=FailureConfig(max_failures=trials.max_failures),
            callbacks=[Log(name, left), *sitting.callbacks],
            verbose=0,
        ),
    )
    # Ray Tune takes an interruption for the end of its experiment, after which the next stage would begin.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    results = tuner.fit()
    for result in (results[number] for number in range(len(results))):
        key = result.config["trial"] if result.config else ""
        if key in left and not left[key].finished and _failure(left[key]) is None:
            _fail(left[key], f"The trial was lost: {result.error or 'it ended before it was finished'}")
    return {key: _failure(piece) or "It is not finished." for key, piece in left.items() if not piece.finished}


def run_trial(config: dict[str, Any], work: Mapping[str, Work], shared: SharedData) -> None:
    """What a trial runs: one piece of work.

    Args:
        config: `trial`, its name.
        work: pieces of the stage by name.
        shared: the interactions.
    """
    piece = work[config["trial"]]
    try:
        piece.run(shared, tune.report)
    except CiessError as error:
        # Not raised: Ray Tune would start the trial again and again, each time to end like this.
        _fail(piece, str(error))


class Log(Callback):
    """A line on standard output for whatever a trial reports in words."""

    def __init__(self, stage: str, work: Mapping[str, Work]) -> None:
        self.stage, self.work, self.ended = stage, work, 0

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """Print a trial's own words."""
        if result.get("line"):
            self._print(trial, result["line"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Print that a trial has ended, and if it failed, why."""
        self.ended += 1
        failure = _failure(self.work[trial.config["trial"]])
        count = f"{self.ended} of {len(self.work)}"
        self._print(trial, f"finished, {count}" if failure is None else f"failed, {count}: {failure}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Print that a trial was lost and goes on."""
        self._print(trial, "was lost, and is started again")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Print that a trial was lost too often."""
        self.ended += 1
        self._print(trial, f"failed, {self.ended} of {len(self.work)}")

    def _print(self, trial: Any, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.stage} {self.work[trial.config['trial']].title}: {text}", flush=True)


def _trial_name(trial: Any) -> str:
    return f"{trial.config['trial']}-{trial.trial_id}"


def _failure(piece: Work) -> str | None:
    return piece.folder.read_json("failure.json")["message"] if piece.folder.exists("failure.json") else None


def _fail(piece: Work, message: str) -> None:
    piece.folder.write_json("failure.json", {"message": message})
