"""Provenance of results as records: versions, commits, hardware and models."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixln.hosts.sources import Source

VERSIONED = ("mixln", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine or cluster that trained, and how trials shared it.

    :param gpus: names of the GPUs in use.
    :param cores: CPU cores of the machine; on a cluster, per trial. 0 if not known.
    :param gpus_per_trial: GPUs per trial on a cluster; `None` on a single machine.
    :param trials: number of trials trained concurrently, with `threads` CPU threads each.
    :param processes: number of processes that train one trial together.
    """

    gpus: tuple[str, ...] = ()
    cores: float = 0
    gpus_per_trial: float | None = None
    trials: int = 1
    threads: int | None = None
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Software and hardware that produced a result.

    :param versions: package → version; for torch including the build, for example `2.13.0+cpu`.
    :param commits: commits of mixln, if it ran from a git checkout.
    :param hardware: all hardware that trained a part of it.
    """

    versions: dict[str, str] = field(default_factory=dict)
    commits: tuple[str, ...] = ()
    hardware: tuple[Hardware, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model that was measured.

    :param source: path or hub id as given by the user.
    :param family: transformers' `model_type`.
    :param placement: placement of a placed model; `None` for a stock model.
    :param precision: dtype in which it was loaded.
    """

    source: str
    family: str
    placement: str | None = None
    parameters: int | None = None
    precision: str | None = None


def here() -> Provenance:
    """The provenance of the running process, without hardware."""
    current = commit()
    return Provenance(versions=versions(), commits=(current,) if current else ())


def versions() -> dict[str, str]:
    """Installed versions of the packages that affect numerical results."""
    import torch

    installed = {name: version(name) for name in VERSIONED}
    # torch's own version names the build, which the package metadata omits.
    return {"python": platform.python_version(), **installed, "torch": torch.__version__}


def commit() -> str | None:
    """The commit of mixln's own source, if it runs from a git checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def model_facts(source: Source, *, parameters: int | None = None, precision: str | None = None) -> ModelFacts:
    """The facts about a model."""
    from mixln.hosts.configs import is_placed

    return ModelFacts(
        source=source.name,
        family=source.config.model_type,
        placement=source.config.placement["name"] if is_placed(source.config) else None,
        parameters=parameters,
        precision=precision,
    )
