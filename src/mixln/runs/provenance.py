"""What ran: versions of the libraries, and mixln's commit where it runs from a checkout."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

VERSIONED = ("mixln", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy")


def facts_of_run() -> dict[str, str]:
    """What ran: versions of the libraries, and mixln's commit where it runs from a checkout."""
    facts = {"versions": ", ".join(f"{name} {number}" for name, number in versions().items())}
    return {**facts, "commit": here} if (here := commit()) else facts


def versions() -> dict[str, str]:
    import torch

    installed = {name: version(name) for name in VERSIONED}
    return {
        "python": platform.python_version(),
        **installed,
        "torch": torch.__version__,
    }  # with the build, for example +cu130


def commit() -> str | None:
    """The commit of mixln's own source, where it runs from a git checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
