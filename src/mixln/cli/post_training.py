"""`mixln finetune`, `mixln reward` and `mixln rlhf`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from mixln.bounds import Seed, check_numbers
from mixln.cli.terminal import Terminal
from mixln.data.settings import ExampleSettings
from mixln.files import check_writable
from mixln.training.settings import PostTrainingSettings, RlhfSettings

if TYPE_CHECKING:
    from mixln.hosts.sources import Source
    from mixln.runs.outcome import PostTrainingOutcome


@dataclass(frozen=True, kw_only=True)
class PostTrainingCommand(ABC):
    """A command that trains an existing model."""

    INTERRUPTED: ClassVar[str] = (
        "run the same command again to resume from the last checkpoint (one per minute), or else from the start"
    )

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The decoder to start from: a hub id, a folder, a GGUF file, or a trial of mixln compare."""
    out: Path
    """Folder of the run; the trained model is in its folder model."""
    seed: Seed = 0
    """Seed of the order of examples, of new weights, and of sampling."""
    cache: Path = field(default_factory=lambda: Path("~/.cache/mixln"))
    """Folder for converted GGUF files."""
    chosen: Annotated[ExampleSettings, tyro.conf.arg(name="")] = field(default_factory=ExampleSettings)

    def __post_init__(self) -> None:
        check_numbers(self)

    @abstractmethod
    def train(self, source: Source) -> PostTrainingOutcome:
        """Trains, unless `out` holds the result."""

    def run(self) -> int:
        """Trains, and prints the metrics on held-out examples before and after."""
        terminal = Terminal()
        check_writable(self.out)
        terminal.loading()
        from mixln.cli.checkpoint import one_source
        from mixln.memory import keep_freed_memory
        from mixln.quiet import quiet
        from mixln.report.tables.training import terminal_tuned
        from mixln.report.wording.training import notes
        from mixln.training.post_training_run import MODEL

        keep_freed_memory()
        with quiet():
            tuned = self.train(one_source(self.model, self.cache))
        if tuned.status == "diverged":
            terminal.line(f"diverged at step {tuned.step:,}: {tuned.reason}; no model was written")
            return 1
        terminal.show(terminal_tuned(tuned))
        for note in notes(tuned):
            terminal.note(note)
        terminal.line(f"model: {self.out / MODEL}")
        return 0


@dataclass(frozen=True, kw_only=True)
class FineTune(PostTrainingCommand):
    """Fine-tune a decoder on prompts and completions; the loss is on the completions only.

    For example: mixln finetune runs/default/pre_lr0.003_seed0 --examples 4000
    """

    out: Path = Path("runs/finetune")
    """Folder of the run; the trained model is in its folder model."""
    tuning: Annotated[PostTrainingSettings, tyro.conf.arg(name="")] = field(default_factory=PostTrainingSettings)

    def train(self, source: Source) -> PostTrainingOutcome:
        from mixln.training.post_training import finetune_step

        return finetune_step(source, self.chosen, self.tuning, self.out, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Reward(PostTrainingCommand):
    """Train a reward model on pairs of answers: a decoder with a scalar head.

    For example: mixln reward runs/finetune/model --examples 2000
    """

    out: Path = Path("runs/reward")
    """Folder of the run; the trained reward model is in its folder model."""
    tuning: Annotated[PostTrainingSettings, tyro.conf.arg(name="")] = field(default_factory=PostTrainingSettings)

    def train(self, source: Source) -> PostTrainingOutcome:
        from mixln.training.post_training import reward_step

        return reward_step(source, self.chosen, self.tuning, self.out, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Rlhf(PostTrainingCommand):
    """Train a decoder with a reward model and a KL penalty towards its initial weights.

    For example: mixln rlhf runs/finetune/model --reward-model runs/reward/model --examples 1000
    """

    out: Path = Path("runs/rlhf")
    """Folder of the run; the trained model is in its folder model."""
    reward_model: str
    """A reward model: the folder model that mixln reward wrote, or another sequence classifier with one output."""
    tuning: Annotated[RlhfSettings, tyro.conf.arg(name="")] = field(default_factory=RlhfSettings)

    def train(self, source: Source) -> PostTrainingOutcome:
        from mixln.cli.checkpoint import one_source
        from mixln.training.post_training import rlhf_step

        judge = one_source(self.reward_model, self.cache)
        return rlhf_step(source, judge, self.chosen, self.tuning, self.out, seed=self.seed)
