"""Interactions: reading them from files, splitting them, making them up with a known answer."""

from ciess.data.interactions import Interactions, Pairs
from ciess.data.planted import planted
from ciess.data.readers import read
from ciess.data.summary import describe

__all__ = ["Interactions", "Pairs", "describe", "planted", "read"]
