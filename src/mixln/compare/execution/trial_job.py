"""One trial as a worker's job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixln.compare.execution.runner import Job
from mixln.compare.settings import GridSettings
from mixln.compare.tasks import TASKS
from mixln.errors import StoreError
from mixln.files import sweep
from mixln.runs.checkpoints import changed, clear, written_in
from mixln.runs.trials import RESULT, TrialResult, finish, read_result
from mixln.training import ranks
from mixln.training.settings import Parallel

if TYPE_CHECKING:
    from transformers import TrainerCallback


@dataclass(frozen=True, kw_only=True)
class TrialJob(Job):
    """Trains one trial.

    :param settings: of its comparison.
    :param config: the stock model's config as a dict.
    :param data: folder of the prepared data.
    :param shared: what all trials of its experiment share, for `trial.json`.
    :param parallel: what each of several processes holds of the model.
    :param together: about how many trials its process does: they share what is compiled.
    """

    settings: GridSettings
    config: dict[str, Any]
    data: Path
    shared: dict[str, Any] | None = None
    parallel: Parallel = "ddp"
    together: int = 1

    def work(self) -> TrialResult:
        """Trains it, together with the processes that torchrun started beside this one, unless its result is there by now."""
        if (there := read_result(self.folder)) is not None:
            tidy(self.folder, there)
            return there
        ranks.agreed(self)
        return self.train()

    @property
    def watchers(self) -> Sequence[TrainerCallback]:
        """Callbacks of the trainer beside those that record."""
        return ()

    def train(self) -> TrialResult:
        """Trains it in each of the processes."""
        from transformers import AutoConfig

        from mixln.training.pretraining import PretrainingConfig, PretrainingRun
        from mixln.training.run import run

        settings, task, entries = self.settings, TASKS[self.settings.task], dict(self.config)
        training = PretrainingRun(
            objective=task.objective(settings, self.data),
            config=PretrainingConfig(
                model=AutoConfig.for_model(entries.pop("model_type"), **entries),
                placement=self.trial.placement,
                init=self.trial.init,
                learning_rate=self.trial.learning_rate,
                seed=self.trial.seed,
                settings=settings.training,
                engine=settings.engine,
                parallel=self.parallel,
                stochastic_depth=task.stochastic_depth(settings),
                trainings=self.together,
            ),
            folder=self.folder,
            extra=self.watchers,
        )
        outcome = run(training)
        result = TrialResult(trial=self.trial, **vars(outcome))
        if not ranks.first():
            return result
        finish(self.folder, result)
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
    """Deletes what an ended trial needs no more: the checkpoints before its last, and what a worker that was killed left.

    :raises StoreError: if the last one is not there, or not as it was written, and there are others.
    """
    sweep(folder)
    last = folder / f"checkpoint-{result.step}"
    if result.loss is not None and any(path.name != last.name for path in written_in(folder)):
        found = changed(last) if (last / "config.json").is_file() else "it is missing"
        if found:
            raise StoreError(
                f"{folder / RESULT} names {last.name} as its model, and {found}: the other checkpoints in {folder} are kept; put it "
                f"back, or delete {folder / RESULT} to run this trial again"
            )
    clear(folder, keep=last.name)
