"""`ciess doctor`: versions, machine, and checks of what a user can expect to work here."""

import sys
import tempfile
from collections.abc import Callable

import torch

from ciess.models.graph import kernels
from ciess.provenance import git_revision, machine, versions
from ciess.storage.storage import Storage


def _writes() -> str:
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(folder)
        storage.write_bytes("probe", b"probe")
        return "ok" if storage.read_bytes("probe") == b"probe" else "a file that was written reads back otherwise"


def _multiplies() -> str:
    """The kernel of propagation against a dense product."""
    from ciess.data import planted
    from ciess.models.graph import Graph

    data = planted(seed=0).data
    graph = Graph(data.train, data.n_users, data.n_items)
    x = torch.randn(data.n, 40, generator=torch.Generator().manual_seed(0))
    expected = graph.matrix.to_dense() @ x
    difference = float((graph.multiply(x) - expected).abs().max())
    return "ok" if difference < 1e-4 else f"differs from the dense product by {difference:.2g}"


def _uses_mkl() -> str:
    return "ok" if torch.backends.mkl.is_available() else "torch has no MKL: propagation on the CPU will be slow"


CHECKS: dict[str, Callable[[], str]] = {
    "temporary files can be written": _writes,
    "sparse products are right": _multiplies,
    "torch has MKL": _uses_mkl,
}
"""What is checked -> function that returns `ok` or what is wrong."""


def _outcome(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as error:  # whatever is broken here is what the report is for
        return f"{type(error).__name__}: {error}"


def doctor() -> tuple[str, bool]:
    """The text of the report, and whether every check passed."""
    lines = [f"{name:<16} {version}" for name, version in versions().items()]
    lines.append(f"{'git revision':<16} {git_revision()}")
    lines += [f"{name:<16} {value}" for name, value in machine().items()]
    lines.append(f"{'torch threads':<16} {torch.get_num_threads()}")
    lines.append(f"{'kernels':<16} {kernels()}")
    lines.append(f"{'executable':<16} {sys.executable}")
    outcomes = {name: _outcome(check) for name, check in CHECKS.items()}
    lines += [f"{name:<32} {outcome}" for name, outcome in outcomes.items()]
    return "\n".join(lines), all(outcome == "ok" for outcome in outcomes.values())
