"""Sweeps: many searches and methods as Ray Tune trials, then one table."""

from ciess.cluster.sweep.config import SweepConfig
from ciess.cluster.sweep.sweep import run_sweep

__all__ = ["SweepConfig", "run_sweep"]
