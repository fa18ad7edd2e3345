"""`ciess status`: how far the search in a run directory is, and how long it still takes."""

from typing import Any

import pyarrow.compute as pc

from ciess.config.earlier import completed
from ciess.config.search import SearchConfig
from ciess.errors import RunDirectoryError
from ciess.runs.directory import holds_run
from ciess.runs.progress import duration
from ciess.storage.checkpoint import last_number, last_values
from ciess.storage.columns import HISTORY
from ciess.storage.storage import Storage, read_columns
from ciess.training.checkpoint_0_1 import first_format_state


def describe_status(out: str) -> str:
    """Reference, search and tables of a run directory, in a few lines.

    Args:
        out: run directory, a path or a URI.

    Returns:
        the text.

    Raises:
        RunDirectoryError: there is no run.
    """
    run = Storage(out)
    if not holds_run(run):
        raise RunDirectoryError(
            f"{run.root} holds no run: a config.yaml that ciess wrote was expected. Check the path, or start one with "
            "`ciess search DATA --out DIR`."
        )
    content = run.read_yaml("config.yaml")
    if "backbone" not in content["config"]:
        raise RunDirectoryError(
            f"{run.root} holds a sweep, but a run of one search or fit was expected. Give a folder below its "
            "searches/; how far the sweep is stands in its own log."
        )
    if not run.exists("data.json"):
        # A run that was killed as it was made: data.json is written after config.yaml.
        return f"{content['config']['backbone']}: not begun"
    about = run.read_json("data.json")
    lines = [f"{about['name']}, {content['config']['backbone']}: {about['users']:,} users, {about['items']:,} items"]
    if "short_fit" in content["config"]:
        config = SearchConfig.model_validate(completed(content["config"]))
        lines += [_reference(run), *_search(run, config)]
    for name in run.child("learned").names():
        found = run.exists(f"learned/{name}/outcome.json")
        lines.append(f"{name}: {'masks found' if found else 'finding masks, not finished'}")
    tables = [name for name in run.child("tables").names() if run.exists(f"tables/{name}/card.json")]
    lines.append(f"tables: {len(tables)} finished" + (f" ({', '.join(tables)})" if tables else ""))
    return "\n".join(lines)


def _reference(run: Storage) -> str:
    if run.exists("reference/metrics.json"):
        found = run.read_json("reference/metrics.json")
        return f"reference: finished, validation quality {found['metrics']['quality']:.4f} at epoch {found['epochs']}"
    folder = run.child("reference", "progress")
    # A training from a good start has a folder of its own; the last one begun has the most to say.
    for place in [folder, *(folder.child(name) for name in reversed(folder.names()))]:
        if (state := last_values(place) or first_format_state(place)) is not None:
            return f"reference: in training, epoch {state['epoch']}, best {state['best_quality']:.4f}"
    return "reference: not begun"


def _search(run: Storage, config: SearchConfig) -> list[str]:
    done = last_number(run.child("checkpoint"))
    wanted = config.episodes * config.iterations
    history = read_columns(run, "history.parquet", HISTORY) if run.exists("history.parquet") else None
    finished = 0 if history is None else len(history)
    if history is None or not finished:
        return [f"search: {done} short fits done, no iteration of {wanted} finished"]
    lines = [f"search: {finished} of {wanted} iterations done"]
    last: dict[str, Any] = history.slice(finished - 1).to_pylist()[0]
    seconds = ("fit_seconds", "evaluation_seconds", "agent_seconds", "checkpoint_seconds")
    recent = history.slice(max(0, finished - 10))
    each = sum(pc.mean(recent[name]).as_py() for name in seconds)
    lines.append(
        f"last: episode {last['episode']}, iteration {last['iteration']}, mean sizes users {last['users_size']:.1f} "
        f"items {last['items_size']:.1f}, sparsity {100 * last['sparsity']:.1f} %, quality {last['quality']:.4f}"
    )
    if finished < wanted:
        lines.append(f"left: {duration((wanted - finished) * each)} at {each:.1f} s an iteration, as in the last ones")
    return lines
