"""Every command with the smallest settings that still run all of it, and its options, as its settings say them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

import tyro

from mixln.cli.compare import COMMANDS
from mixln.cli.convert import Convert
from mixln.cli.data import Data
from mixln.cli.diagnose import Diagnose
from mixln.cli.evaluate import Evaluate
from mixln.cli.placements import Show
from mixln.cli.plan import PlanCommand
from mixln.cli.post_training import FineTune, Reward, Rlhf
from mixln.cli.pretrain import Pretrain
from mixln.cli.prune import Prune
from mixln.cli.reproduce import Reproduce
from mixln.cli.stress import StressCommand
from mixln.cli.tune import TuneCommand

MINE = "notes.txt"
"""A file of the user's beside everything else."""
CACHE = ("--cache", "cache")
TEXT = ("--sequence-length", "16", "--batch-size", "4", "--held-out", "0.1", "--precision", "float32", *CACHE)
SCRATCH = ("--model", "config.json", "--data", "text", *TEXT)
SHORT = ("--steps", "2", "--evaluations", "1")
LEARNT = (
    "--steps",
    "1",
    "--batch-size",
    "2",
    "--held-out-examples",
    "2",
    "--precision",
    "float32",
    "--evaluations",
    "1",
)
JOBS = ("--jobs", "1")

STORE = ("compare", *SCRATCH, *SHORT, *JOBS, "--placements", "pre", "mix(0.5)", "--seeds", "0")
ONE = ("compare", *SCRATCH, *SHORT, *JOBS, "--placements", "pre", "--seeds", "0")
SINGLE = ("pretrain", *SCRATCH, *SHORT, "--placement", "mix(0.5)", "--checkpoint-seconds", "0")
SIZES = ("--image-size", "8", "--patch-size", "4", "--batch-size", "4", "--flip", "0")
VISION = (
    *("compare", "--task", "vision", "--model", "vit-micro", "--data", "images", *SIZES, *SHORT, *JOBS, *CACHE),
    *("--precision", "float32", "--placements", "pre", "--seeds", "0", "--held-out", "0.2"),
)
TUNING = {name: (name, "placed", "--data", "data.jsonl", *LEARNT, *CACHE) for name in ("finetune", "reward")}
LORA = (*TUNING["finetune"], "--lora", "2")
SAMPLED = ("--generations", "2", "--new-tokens", "2")
REINFORCEMENT = ("rlhf", "placed", "--reward-model", "rewarded/model", *TUNING["finetune"][2:], *SAMPLED)
JUDGED = ("rlhf", "placed", "--reward-model", "placed", *TUNING["finetune"][2:], *SAMPLED)
PREPARATION = (
    *("data", "prepare", "--data", "text", "--tokens", "1000", "--sequence-length", "16"),
    *("--vocabulary-size", "300", "--held-out", "0.1"),
)
MEASURED = ("--tokens", "64", "--gradient-tokens", "0", *CACHE)
DIAGNOSIS = ("diagnose", "placed", "--data", "data.txt", *MEASURED)
EVALUATION = ("evaluate", "placed", "--tasks", "perplexity", "--data", "data.txt", *CACHE)
ASKED = ("evaluate", "placed", "--tasks", "small_choice", "--task-folder", "tasks", *CACHE)
PRUNING = ("prune", "placed", "--layers", "1", *CACHE)
CONVERSION = ("convert", "stock", *CACHE)
PLAN = ("plan", "--model", "config.json", "--batch-size", "4", "--sequence-length", "16")
STRESS = ("stress", *SCRATCH, "--placements", "pre", "--seeds", "0", "--steps", "20", *JOBS)
SEARCH = (
    *("tune", *SCRATCH, "--trials", "6", "--steps", "4", "--evaluations", "1", "--seeds", "0", "--finalists", "1"),
    *JOBS,
)


def _step(name: str, *words: str) -> tuple[str, ...]:
    """Options of a step of a chain, which begin with its name."""
    return tuple(word.replace("--", f"--{name}.") for word in words)


CHAINED = (
    *(*ONE, "--chain", "finetune,evaluate,rlhf", "--evaluate.tasks", "small_choice", "--evaluate.task-folder", "tasks"),
    *_step("finetune", "--data", "data.jsonl", *LEARNT),
    *_step("reward", "--data", "data.jsonl", *LEARNT),
    *_step("rlhf", "--steps", "1", "--batch-size", "2", "--precision", "float32", "--evaluations", "1", *SAMPLED),
)


@dataclass(frozen=True, kw_only=True)
class Base:
    """A command, to be changed.

    :param settings: the class of its settings.
    :param named: which of its words names a model or the like; 0 for none.
    :param workers: whether it trains in processes of their own, which takes ten seconds.
    """

    words: tuple[str, ...]
    settings: type[Any]
    named: int = 0
    workers: bool = False


BASES: dict[str, Base] = {
    "compare": Base(words=(*ONE, "--out", "new"), settings=COMMANDS["language"], workers=True),
    "compare images": Base(words=(*VISION, "--out", "new"), settings=COMMANDS["vision"], workers=True),
    "pretrain": Base(words=(*SINGLE, "--out", "new"), settings=Pretrain),
    "diagnose": Base(words=(*DIAGNOSIS, "--out", "new"), settings=Diagnose, named=1),
    "evaluate": Base(words=(*EVALUATION, "--out", "new"), settings=Evaluate, named=1),
    "finetune": Base(words=(*TUNING["finetune"], "--out", "new"), settings=FineTune, named=1),
    "reward": Base(words=(*TUNING["reward"], "--out", "new"), settings=Reward, named=1),
    "rlhf": Base(words=(*JUDGED, "--out", "new"), settings=Rlhf, named=1),
    "prune": Base(words=(*PRUNING, "--out", "new"), settings=Prune, named=1),
    "convert": Base(words=(*CONVERSION, "--out", "new"), settings=Convert, named=1),
    "plan": Base(words=PLAN, settings=PlanCommand),
    "stress": Base(words=(*STRESS, "--out", "new"), settings=StressCommand, workers=True),
    "tune": Base(words=(*SEARCH, "--out", "new"), settings=TuneCommand, workers=True),
    "reproduce": Base(words=("reproduce", "table1", "--plan", "--out", "new"), settings=Reproduce, named=1),
    "data prepare": Base(words=(*PREPARATION, "--out", "new"), settings=Data),
    "placements show": Base(words=("placements", "show", "pre"), settings=Show, named=2),
}


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a command.

    :param number: whether it takes numbers.
    :param flag: whether it takes nothing.
    """

    name: str
    number: bool = False
    flag: bool = False


def options(settings: type[Any], prefix: str = "") -> Iterator[Option]:
    """All options of a command, with those of the settings within its settings."""
    kinds = get_type_hints(settings, include_extras=True)
    for item in fields(settings):
        kind = kinds[item.name]
        marks = getattr(kind, "__metadata__", ())
        if tyro.conf.Suppress in marks or tyro.conf.Positional in marks:
            continue
        name = item.name.replace("_", "-")
        named = next((mark.name for mark in marks if isinstance(getattr(mark, "name", None), str)), name)
        parts = set(_parts(kind))
        if inner := next((part for part in parts if is_dataclass(part) and part.__module__ != "mixln.bounds"), None):
            yield from options(inner, f"{prefix}{named}." if named else prefix)
        else:
            yield Option(
                name=prefix + name, number=bool({int, float} & parts), flag=kind is bool and item.default is False
            )


def _parts(kind: Any) -> Iterator[Any]:
    """The plain types within a type."""
    if isinstance(kind, type) and not get_args(kind):
        yield kind
    for part in get_args(kind):
        if isinstance(part, type) or get_args(part):
            yield from _parts(part)


OPTIONS: dict[str, tuple[Option, ...]] = {name: tuple(options(base.settings)) for name, base in BASES.items()}
