"""Opening a run directory: a new one, the same one again to go on, or a clear refusal."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ciess.config.data import DataConfig
from ciess.config.earlier import completed
from ciess.config.search import SearchConfig
from ciess.config.types import Frozen
from ciess.data import Interactions
from ciess.errors import BudgetError, RunDirectoryError
from ciess.models.graph import kernels
from ciess.provenance import git_revision, machine, versions
from ciess.search.candidates import Candidate, from_table
from ciess.storage.columns import CANDIDATES
from ciess.storage.storage import Storage, read_columns

Merge = Callable[[Any, Any], Any]
"""From the old and the new value of a key to the one that is written."""


def open_run(
    run: Storage,
    data: Interactions,
    config: Frozen,
    options: DataConfig,
    resume: bool = False,
    overwrite: bool = False,
    may_change: Mapping[str, Merge] | None = None,
    option: str = "--out",
) -> None:
    """Make the run directory, or check that it is the same run.

    Args:
        run: run directory.
        data: interactions with n users and items.
        config: settings that the run is made with.
        options: how the data was read.
        resume: go on with a run that is there.
        overwrite: delete a run that is there.
        may_change: keys of the config that a resumed run may have other values of.
        option: by which the user chooses another folder.

    Raises:
        RunDirectoryError: `run` holds a run and neither resume nor overwrite is given; a resumed run was made with
            other settings or data; there is none to resume.
    """
    may_change = may_change or {}
    if resume and overwrite:
        raise RunDirectoryError(
            f"Found both --resume and --overwrite for {run.root}. At most one was expected: the one goes on with the "
            "run, the other deletes it. Choose one."
        )
    content = resolved(config, options)
    if holds_run(run):
        if overwrite:
            try:
                run.delete()
            except OSError as error:
                raise RunDirectoryError(
                    f"Cannot delete {run.root}: {error}. --overwrite needs a folder that can be written. Choose "
                    "another --out, or check the access rights."
                ) from error
        elif not resume:
            raise RunDirectoryError(
                f"{run.root} already holds a run. An empty or new folder was expected. Choose another --out, go on "
                "with that run by --resume, or delete it by --overwrite."
            )
        else:
            _check_same(run, data, content, may_change, option)
            before = run.read_yaml("config.yaml")["config"]
            for key, merge in may_change.items():
                content["config"][key] = merge(before[key], content["config"][key])
    elif resume:
        raise RunDirectoryError(
            f"{run.root} holds no run to resume: there is no config.yaml of one. Check --out, or leave --resume "
            "out to start one."
        )
    elif names := run.names():
        raise RunDirectoryError(
            f"{run.root} holds files that are not a run of ciess: {', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}. An empty or new folder was expected. Choose another {option}."
        )
    made_with = {"versions": versions(), "git_revision": git_revision(), "machine": machine(), "kernels": kernels()}
    run.write_yaml("config.yaml", content | {"made_with": made_with})
    source = str(Path(data.source).resolve()) if Path(data.source).exists() else data.source
    about = {"name": data.name, "source": source, "split_seed": data.split_seed, "sha256": data.sha256}
    run.write_json("data.json", {**about, **data.counts(), "notes": list(data.notes)})


def resolved(config: Frozen, options: DataConfig) -> dict[str, Any]:
    """All settings as plain values."""
    return {"config": config.model_dump(mode="json"), "data": options.model_dump(mode="json")}


def holds_run(run: Storage) -> bool:
    """Whether there is the config.yaml of a run; one that another program wrote is none."""
    if not run.exists("config.yaml"):
        return False
    try:
        found = run.read_yaml("config.yaml")
    except yaml.YAMLError:
        return False
    return isinstance(found, dict) and {"config", "data", "made_with"} <= found.keys()


def check_data(run: Storage, data: Interactions, option: str = "--out") -> None:
    """Raise RunDirectoryError where the run was made from other data."""
    found = run.read_json("data.json")["sha256"]
    if found != data.sha256:
        raise RunDirectoryError(
            f"{run.root} was made from data with sha256 {found[:12]}, but the data given now has {data.sha256[:12]}. "
            f"Give the same file and reading options, or choose another {option}."
        )


def _check_same(
    run: Storage, data: Interactions, content: dict[str, Any], may_change: Mapping[str, Merge], option: str
) -> None:
    before = run.read_yaml("config.yaml")
    before["config"] = completed(before["config"])
    others = {key for part in content for key in content[part].keys() ^ before[part].keys()}
    if others:
        raise RunDirectoryError(
            f"{run.root} holds a run of another command or version of ciess: one of the two has no "
            f"{', '.join(sorted(others)[:3])}{', ...' if len(others) > 3 else ''}. The same ones were expected. Give "
            f"the command and version that the run was made with, or choose another {option}."
        )
    differing = [
        f"{part}.{key} was {before[part][key]!r}, now {value!r}"
        for part, settings in content.items()
        for key, value in settings.items()
        if key not in may_change and before[part][key] != value
    ]
    names = ", ".join(may_change)
    if differing:
        raise RunDirectoryError(
            f"{run.root} was made with other settings: {'; '.join(differing)}. The same ones were expected"
            f"{f' (only {names} may change)' if names else ''}. Give the old values, or choose another {option}."
        )
    # It is written after config.yaml, so a run that was killed in between has none.
    if run.exists("data.json"):
        check_data(run, data, option)


def read_config(run: Storage) -> tuple[SearchConfig, DataConfig]:
    """Settings of the search in a run directory.

    Raises:
        RunDirectoryError: there is none.
    """
    if not holds_run(run) or "short_fit" not in (content := run.read_yaml("config.yaml"))["config"]:
        raise RunDirectoryError(
            f"{run.root} holds no search: a config.yaml that `ciess search` wrote was expected. Check the path, or "
            "start one with `ciess search DATA --out DIR`."
        )
    return SearchConfig.model_validate(completed(content["config"])), DataConfig.model_validate(content["data"])


def read_data_path(run: Storage) -> str:
    """Where the interactions of the search are.

    Raises:
        RunDirectoryError: they have moved.
    """
    source = str(run.read_json("data.json")["source"])
    if source != "planted" and "://" not in source and not Path(source).exists():
        raise RunDirectoryError(
            f"{run.root} was made from {source}, which is no longer there. The same interactions were expected: give "
            "their new place with --data."
        )
    return source


def read_visited(run: Storage, config: SearchConfig) -> list[Candidate]:
    """Masks that the search has visited.

    Raises:
        RunDirectoryError: there are none, or none that can be read.
    """
    visited: list[Candidate] = []
    advice = "Restore the file, or go on with the search by --resume, which writes it anew."
    if run.exists("candidates.parquet"):
        try:
            visited = from_table(read_columns(run, "candidates.parquet", CANDIDATES, advice), config.max_size)
        except (BudgetError, ValueError) as error:
            raise RunDirectoryError(
                f"{run.path('candidates.parquet')} cannot be read ({error}); the masks that `ciess search` visited "
                f"were expected. {advice}"
            ) from error
    if not any(candidate.origin == "search" for candidate in visited):
        raise RunDirectoryError(
            f"{run.root} holds no candidates: its search has finished no iteration. At least one was expected. Go on "
            "with `ciess search ... --resume` first."
        )
    return visited
