"""One trial as a worker's job."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixln.compare.results import TrialResult
from mixln.compare.runner import Job
from mixln.compare.store import RESULT, TRIAL, read_result, write_result
from mixln.files import sweep
from mixln.training import ranks
from mixln.training.checkpoints import UNFINISHED, discard
from mixln.training.metrics import METRICS
from mixln.training.settings import EngineSettings, Parallel, TrainSettings


@dataclass(frozen=True, kw_only=True)
class Pretraining(Job):
    """Trains one trial.

    :param config: the stock model's config as a dict.
    :param text: folder of the prepared text.
    :param parallel: what each of several processes holds of the model.
    :param together: about how many trials its process does: they share what is compiled.
    """

    config: dict[str, Any]
    text: Path
    training: TrainSettings
    engine: EngineSettings = field(default_factory=EngineSettings)
    parallel: Parallel = "ddp"
    together: int = 1

    def work(self) -> TrialResult:
        """Trains it, together with the processes that torchrun started beside this one, unless its result is there by now."""
        if (there := read_result(self.folder)) is not None:
            tidy(self.folder, there)
            return there
        ranks.agreed(self)
        return self.train()

    def train(self) -> TrialResult:
        """What each of the processes does."""
        from transformers import AutoConfig

        from mixln.data.text import Text
        from mixln.training.pretrain import pretrain

        entries = dict(self.config)
        outcome = pretrain(
            AutoConfig.for_model(entries.pop("model_type"), **entries),
            placement=self.trial.placement,
            init=self.trial.init,
            learning_rate=self.trial.learning_rate,
            seed=self.trial.seed,
            text=Text.load(self.text),
            settings=self.training,
            folder=self.folder,
            engine=self.engine,
            parallel=self.parallel,
            together=self.together,
        )
        result = TrialResult(trial=self.trial, **vars(outcome))
        if not ranks.first():
            return result
        write_result(self.folder, result)
        tidy(self.folder, result)
        return result

    def failure(self, reason: str) -> TrialResult:
        return TrialResult(
            trial=self.trial,
            status="failed",
            reason=reason,
            step=0,
            tokens=0,
            loss=None,
            bits_per_byte=None,
            tokens_per_second=None,
            seconds=0.0,
        )


def tidy(folder: Path, result: TrialResult) -> None:
    """Deletes what an ended trial needs no more: the checkpoints before its last, and what a worker that was killed left."""
    sweep(folder, TRIAL, RESULT, METRICS, "checkpoint-*")
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint.name != f"checkpoint-{result.step}":
            discard(checkpoint)
