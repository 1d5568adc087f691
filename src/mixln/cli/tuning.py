"""`mixln finetune`, `mixln reward` and `mixln rlhf`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from mixln.data.settings import ExampleSettings
from mixln.errors import SettingsError
from mixln.files import check_writable
from mixln.training.settings import RlhfSettings, TuneSettings

if TYPE_CHECKING:
    from mixln.hosts.sources import Say, Source
    from mixln.training.outcome import Tuned

INTERRUPTED = "run the same command again to go on from the last checkpoint (one a minute)"


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Fine-tune a decoder on prompts and completions; the loss is taken on the completions alone.

    For example: mixln finetune runs/default/pre_lr0.003_seed0 --examples 4000
    """

    INTERRUPTED: ClassVar[str] = INTERRUPTED

    model: Annotated[str, tyro.conf.Positional]
    """A hub id, a folder, a GGUF file, or a trial of mixln compare."""
    out: Path = Path("runs/finetune")
    """Folder of the training; the model that comes out of it is in its folder model."""
    seed: int = 0
    """Decides the order of the examples, new weights, and what is sampled."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for converted GGUF files."""
    chosen: Annotated[ExampleSettings, tyro.conf.arg(name="")] = field(default_factory=ExampleSettings)
    tuning: Annotated[TuneSettings, tyro.conf.arg(name="")] = field(default_factory=TuneSettings)

    def run(self) -> int:
        """Trains, and prints what it changed on the held-out examples."""

        def work(source: Source, say: Say) -> Tuned:
            from mixln.training.steps import finetune_step

            return finetune_step(source, self.chosen, self.tuning, self.out, seed=self.seed, say=say)

        return _run(self, work)


@dataclass(frozen=True, kw_only=True)
class Reward:
    """Train a reward model on pairs of answers: a decoder's body with a head that scores.

    For example: mixln reward runs/finetune/model --examples 2000
    """

    INTERRUPTED: ClassVar[str] = INTERRUPTED

    model: Annotated[str, tyro.conf.Positional]
    """The decoder to start from: a hub id, a folder, a GGUF file, or a trial of mixln compare."""
    out: Path = Path("runs/reward")
    """Folder of the training; the reward model that comes out of it is in its folder model."""
    seed: int = 0
    """Decides the order of the examples, new weights, and what is sampled."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for converted GGUF files."""
    chosen: Annotated[ExampleSettings, tyro.conf.arg(name="")] = field(default_factory=ExampleSettings)
    tuning: Annotated[TuneSettings, tyro.conf.arg(name="")] = field(default_factory=TuneSettings)

    def run(self) -> int:
        """Trains, and prints how often it prefers the chosen one of held-out pairs."""

        def work(source: Source, say: Say) -> Tuned:
            from mixln.training.steps import reward_step

            return reward_step(source, self.chosen, self.tuning, self.out, seed=self.seed, say=say)

        return _run(self, work)


@dataclass(frozen=True, kw_only=True)
class Rlhf:
    """Train a decoder by a reward model, without going far from where it starts.

    For example: mixln rlhf runs/finetune/model --reward-model runs/reward/model --examples 1000
    """

    INTERRUPTED: ClassVar[str] = INTERRUPTED

    model: Annotated[str, tyro.conf.Positional]
    """The decoder to start from: a hub id, a folder, a GGUF file, or a trial of mixln compare."""
    reward_model: str
    """A reward model: the folder model that mixln reward wrote, or another sequence classifier with one output."""
    out: Path = Path("runs/rlhf")
    """Folder of the training; the model that comes out of it is in its folder model."""
    seed: int = 0
    """Decides the order of the examples, new weights, and what is sampled."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for converted GGUF files."""
    chosen: Annotated[ExampleSettings, tyro.conf.arg(name="")] = field(default_factory=ExampleSettings)
    tuning: Annotated[RlhfSettings, tyro.conf.arg(name="")] = field(default_factory=RlhfSettings)

    def run(self) -> int:
        """Trains, and prints reward, KL and length on held-out prompts, and what the policy thinks of held-out pairs."""

        def work(source: Source, say: Say) -> Tuned:
            from mixln.cli.checkpoint import one_source
            from mixln.training.steps import rlhf_step

            judge = one_source(self.reward_model, self.cache)
            return rlhf_step(source, judge, self.chosen, self.tuning, self.out, seed=self.seed, say=say)

        return _run(self, work)


def _run(command: Any, work: Callable[[Source, Say], Tuned]) -> int:
    from rich.console import Console

    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True, style="dim")

    if not 0 <= command.seed < 2**32:
        raise SettingsError(f"seed must lie in [0, 2³²), got {command.seed}")
    check_writable(command.out)
    say("loading libraries")
    from mixln.cli.checkpoint import one_source
    from mixln.memory import keep_freed_memory
    from mixln.report import terminal_tuned
    from mixln.training.outcome import hacked
    from mixln.training.quiet import quiet_libraries
    from mixln.training.tuning import MODEL

    keep_freed_memory()
    with quiet_libraries():
        tuned = work(one_source(command.model, command.cache), say)
    if tuned.after:
        console.print(terminal_tuned(tuned))
    if "reward" in tuned.after and hacked(
        *((tuned.before[name].value, tuned.after[name].value) for name in ("reward", "accuracy"))
    ):
        console.print(
            "• The reward rose while the policy itself got worse at telling chosen answers from rejected ones: a sign that the "
            "reward model was learnt, and not what it stands for."
        )
    if tuned.status == "diverged":
        console.print(f"diverged at step {tuned.step:,}: {tuned.reason}; no model was written", markup=False)
        return 1
    console.print(f"model: {command.out / MODEL}", highlight=False, markup=False, soft_wrap=True)
    return 0
