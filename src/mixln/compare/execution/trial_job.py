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

    :param settings: settings of its comparison.
    :param config: the stock model's config as a dict.
    :param data: folder of the prepared data.
    :param shared: the part of `trial.json` that all trials of the experiment share.
    :param parallel: distribution of the model over several processes.
    :param together: approximate number of trials in the same process, which share compiled layers.
    """

    settings: GridSettings
    config: dict[str, Any]
    data: Path
    shared: dict[str, Any] | None = None
    parallel: Parallel = "ddp"
    together: int = 1

    def work(self) -> TrialResult:
        """Trains the trial on all ranks, unless another worker has finished it in the meantime."""
        if (result := read_result(self.folder)) is not None:
            tidy(self.folder, result)
            return result
        ranks.agreed(self)
        return self.train()

    @property
    def watchers(self) -> Sequence[TrainerCallback]:
        """Additional callbacks of the trainer."""
        return ()

    def train(self) -> TrialResult:
        """Trains the trial; called on every rank."""
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
        finish(self.folder, result)  # before `tidy`: until the result is on disk, a resumed run needs the checkpoints
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
    """Deletes the earlier checkpoints of a trial that has ended, and the temporary files of a killed worker.

    :raises StoreError: if the last checkpoint is missing or corrupt and there are others, which are kept.
    """
    sweep(folder)
    last = folder / f"checkpoint-{result.step}"
    if result.loss is not None and any(path.name != last.name for path in written_in(folder)):
        problem = changed(last) if (last / "config.json").is_file() else "it is missing"
        if problem:
            raise StoreError(
                f"{folder / RESULT} names {last.name} as its model, but {problem}: the other checkpoints in {folder} are kept; restore "
                f"it, or delete {folder / RESULT} to run this trial again"
            )
    clear(folder, keep=last.name)
