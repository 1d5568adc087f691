"""One trial as a worker's job, of language or of images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixln.compare.runner import Job
from mixln.data.settings import AugmentSettings
from mixln.errors import StoreError
from mixln.files import sweep
from mixln.runs.checkpoints import changed, clear, written_in
from mixln.runs.outcome import Outcome
from mixln.runs.trials import RESULT, TrialResult, finish, read_result
from mixln.training import ranks
from mixln.training.settings import EngineSettings, Parallel, TrainSettings, VisionTrainSettings


@dataclass(frozen=True, kw_only=True)
class Training(Job):
    """Trains one trial.

    :param config: the stock model's config as a dict.
    :param shared: what all trials of its experiment share, for `trial.json`.
    :param parallel: what each of several processes holds of the model.
    :param together: about how many trials its process does: they share what is compiled.
    """

    config: dict[str, Any]
    shared: dict[str, Any] | None = None
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

    @abstractmethod
    def outcome(self, config: Any, **how: Any) -> Outcome:
        """Trains it.

        :param config: stock config.
        :param how: what every training from scratch takes.
        """

    def train(self) -> TrialResult:
        """What each of the processes does."""
        from transformers import AutoConfig

        entries = dict(self.config)
        outcome = self.outcome(
            AutoConfig.for_model(entries.pop("model_type"), **entries),
            placement=self.trial.placement,
            init=self.trial.init,
            learning_rate=self.trial.learning_rate,
            seed=self.trial.seed,
            folder=self.folder,
            engine=self.engine,
            parallel=self.parallel,
            together=self.together,
        )
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


@dataclass(frozen=True, kw_only=True)
class Pretraining(Training):
    """A language model.

    :param text: folder of the prepared text.
    """

    text: Path
    training: TrainSettings

    def outcome(self, config: Any, **how: Any) -> Outcome:
        from mixln.data.text import Text
        from mixln.training.pretrain import pretrain

        return pretrain(config, text=Text.load(self.text), settings=self.training, **how)


@dataclass(frozen=True, kw_only=True)
class Classification(Training):
    """An image classifier.

    :param images: folder of the prepared images.
    """

    images: Path
    augment: AugmentSettings
    training: VisionTrainSettings
    stochastic_depth: float = 0.0

    def outcome(self, config: Any, **how: Any) -> Outcome:
        from mixln.data.pictures import Images
        from mixln.training.scratch import train_from_scratch
        from mixln.training.vision import Classified

        material = Classified(Images.load(self.images), self.augment)
        return train_from_scratch(
            config, material=material, settings=self.training, stochastic_depth=self.stochastic_depth, **how
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
