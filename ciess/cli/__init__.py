"""The command line `ciess`, and what other programs of the project share with it."""

from ciess.cli.main import main

__all__ = ["main"]
