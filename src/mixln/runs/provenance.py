"""Provenance of results as records: versions, commits and hardware that made them, and the models they are of."""

from __future__ import annotations

import platform
import re
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
    :param cores: processor cores of the machine; on a cluster, of a trial. 0 if not known.
    :param gpus_per_trial: on a cluster; `None` on a single machine.
    :param trials: trained side by side, with `threads` each.
    :param processes: that train one trial together.
    """

    gpus: tuple[str, ...] = ()
    cores: float = 0
    gpus_per_trial: float | None = None
    trials: int = 1
    threads: int | None = None
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What made a result.

    :param versions: package → version; of torch with its build, for example `2.13.0+cpu`.
    :param commits: of mixln's own source, where it ran from a git checkout.
    :param hardware: everything that trained a part of it.
    """

    versions: dict[str, str] = field(default_factory=dict)
    commits: tuple[str, ...] = ()
    hardware: tuple[Hardware, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model that was measured.

    :param source: the path or hub id that was named.
    :param family: transformers' `model_type`.
    :param placement: of a placed model, its placement.
    :param precision: number format that it was loaded in.
    """

    source: str
    family: str
    placement: str | None = None
    parameters: int | None = None
    precision: str | None = None


def here() -> Provenance:
    """The provenance of what runs now, without its hardware."""
    own = commit()
    return Provenance(versions=versions(), commits=(own,) if own else ())


def versions() -> dict[str, str]:
    """The installed versions of the packages that decide numbers."""
    import torch

    installed = {name: version(name) for name in VERSIONED}
    return {"python": platform.python_version(), **installed, "torch": torch.__version__}  # with the build


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
    """The facts of a model that was found."""
    from mixln.hosts.configs import is_placed

    return ModelFacts(
        source=source.name,
        family=source.config.model_type,
        placement=source.config.placement["name"] if is_placed(source.config) else None,
        parameters=parameters,
        precision=precision,
    )


FORMER = re.compile(
    r"(?P<cluster>a Ray cluster; (?P<share>[\d.]+) processor cores and (?P<gpus_each>[\d.]+) GPUs a trial)"
    r"|(?:(?P<gpus>[^;]+?), )?(?P<cores>\d+) processor cores; (?:(?P<trials>\d+) trials side by side, (?P<threads>\d+) threads each"
    r"|one trial at a time(?:, on (?P<processes>\d+) processes together)?)"
)
"""Hardware as mixln 0.1 wrote it into its files, one after the other, separated by semicolons."""


def former_hardware(text: str) -> tuple[Hardware, ...]:
    """Reads hardware in the words of mixln 0.1."""
    return tuple(map(_former, FORMER.finditer(text)))


def former_provenance(facts: dict[str, str]) -> Provenance:
    """Reads the facts about a run in the words of mixln 0.1."""
    versions = [part.strip() for part in re.split("[,;]", facts.get("versions", ""))]
    return Provenance(
        versions=dict(part.rsplit(" ", 1) for part in versions if " " in part),
        commits=tuple(facts["commit"].split("; ")) if facts.get("commit") else (),
        hardware=former_hardware(facts.get("machine", "")),
    )


def _former(found: re.Match[str]) -> Hardware:
    if found["cluster"]:
        return Hardware(cores=float(found["share"]), gpus_per_trial=float(found["gpus_each"]))
    return Hardware(
        gpus=tuple(found["gpus"].split(", ")) if found["gpus"] else (),
        cores=int(found["cores"]),
        trials=int(found["trials"] or 1),
        threads=int(found["threads"]) if found["threads"] else None,
        processes=int(found["processes"] or 1),
    )
