"""What a result was made with: versions, git revision, machine, and the kernels chosen."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch",
    "torch-geometric",
    "ray",
    "numpy",
    "pyarrow",
    "pydantic",
    "safetensors",
    "scipy",
    "matplotlib",
    "tyro",
)


def versions() -> dict[str, str]:
    """Version of python, ciess and every package that can change a result; `not installed` where one is missing."""
    found = {"python": platform.python_version(), "ciess": package_version("ciess")}
    return found | {name: package_version(name) for name in PACKAGES}


def package_version(name: str) -> str:
    """Version of an installed package, or `not installed`."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_revision() -> str:
    """Commit of the checkout that ciess runs from, with `+changes` where it has any; `none` outside a checkout."""
    folder = Path(__file__).parent
    try:
        # An installed copy may lie in the checkout of something else, which does not track it.
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name], cwd=folder, capture_output=True, check=True
        )
        revision = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", str(folder)], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return revision + ("+changes" if changed else "")


def machine() -> dict[str, Any]:
    """Processor, cores, memory in GiB, and CUDA devices."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    return {
        "platform": platform.platform(),
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": None if memory is None else round(memory, 1),
        "cuda_devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }
