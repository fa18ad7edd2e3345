"""Run a sweep on Ray: `python ray_jobs/sweep.py`, or submitted by `ray job submit --working-dir . --`."""

import sys
from pathlib import Path

# A job runs in a copy of its working directory, where the package need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from ciess.cluster.sweep.command import main
except ModuleNotFoundError as error:
    if error.name != "ciess":
        raise
    print(
        f"sweep: found no package ciess, neither in {Path(__file__).resolve().parents[1]} nor installed; the working "
        "directory was expected to be the project's folder. Submit with --working-dir set to it, or install ciess.",
        file=sys.stderr,
    )
    sys.exit(2)

if __name__ == "__main__":
    main()
