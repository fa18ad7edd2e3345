"""Every error that ciess raises on purpose.

A message says what was found, what was expected and what to do. The command line turns an
`InputError` into one paragraph and exit code 2, any other `CiessError` into exit code 1.
"""


class CiessError(Exception):
    """Root of all errors of this package."""


class InputError(CiessError):
    """What the user gave is wrong: a file, an option, an identifier, a directory."""


class DataError(InputError):
    """The interactions cannot be read or split."""


class BudgetError(InputError):
    """A sparsity or a memory budget that cannot be met."""


class ArtifactError(InputError):
    """A saved table that cannot be trusted or understood."""


class RunDirectoryError(InputError):
    """A run directory that is missing, in use, or of another run."""


class FitError(CiessError):
    """Training broke down, for instance by a non-finite loss."""


class SearchError(CiessError):
    """A search was told what it did not ask for."""


class PlacementError(InputError):
    """Resources that the cluster does not have."""


class SweepError(CiessError):
    """A part of a sweep failed; the rest of it is finished."""
