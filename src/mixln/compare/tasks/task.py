"""The interface of a task: everything that differs between language models, image classifiers and others.

Nothing here needs torch: the methods of a task import training and planning when they are called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from mixln.compare.metrics import TaskMetrics
from mixln.compare.results import FrequencyBaseline, PlacementPredictions, PlacementSummary, TrialLength
from mixln.compare.settings import GridSettings
from mixln.compare.store import Store
from mixln.data.image_dataset import ImagesInfo
from mixln.data.text import TextInfo
from mixln.runs.trials import TrialResult
from mixln.training.settings import Parallel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from mixln.hosts.sources import Source
    from mixln.planning.plan import Plan
    from mixln.training.pretraining import Objective

S = TypeVar("S", bound=GridSettings)
D = TypeVar("D")


@dataclass(frozen=True, kw_only=True)
class TaskData(Generic[D]):
    """Prepared data, and the values of a comparison that depend on it.

    :param source: the data, which is stored in `folder`.
    :param fingerprint: hash of the data.
    :param config: stock config that fits the data.
    :param length: training length of one trial.
    :param floor: metrics of a model that knows only frequencies.
    :param text: description of a text.
    :param images: description of images.
    """

    source: D
    folder: Path
    fingerprint: str
    config: PreTrainedConfig
    length: TrialLength
    floor: FrequencyBaseline
    text: TextInfo | None = None
    images: ImagesInfo | None = None


class Task(ABC, Generic[S, D]):
    """A task of comparisons.

    `S` is the class of its settings, `D` that of its prepared data.
    """

    name: ClassVar[str]
    """Value of `--task`."""
    settings: ClassVar[type[GridSettings]]
    """Class of its settings."""
    entry: ClassVar[str]
    """Entry of its settings with the data, and of `experiment.json` with the fingerprint of the data."""
    head: ClassVar[str]
    """Head of its models, see :func:`mixln.from_config`."""
    metrics: ClassVar[TaskMetrics]
    """Metrics of its trials; `ranking` orders its placements."""

    @abstractmethod
    def config(self, settings: S) -> PreTrainedConfig:
        """The stock config of its models, before the data is known."""

    @abstractmethod
    def warms_up(self, settings: S) -> bool:
        """Whether the learning rate warms up."""

    @abstractmethod
    def prepare(self, settings: S, config: PreTrainedConfig) -> TaskData[D]:
        """Prepares the data, or finds it in the cache.

        :param config: result of :meth:`config`.
        """

    @abstractmethod
    def objective(self, settings: S, folder: Path) -> Objective[Any]:
        """The prepared data in a folder, with its trainer and evaluation."""

    @abstractmethod
    def trained_on(self, experiment: dict[str, Any], source: Source) -> Source:
        """Adds the data of the experiment to the model of a trial, so that the model is not evaluated on its training data.

        :raises ValueError: if the experiment is corrupt.
        :raises KeyError: likewise.
        """

    @abstractmethod
    def schedule(self, settings: S) -> TrainingLength:
        """Length of a training."""

    @abstractmethod
    def estimate(self, settings: S, trials: int) -> Estimate:
        """Estimated cost of a comparison; its data is not read."""

    def plan(
        self, settings: S, trials: int, *, processes: int = 1, parallel: Parallel = "ddp", memory: float | None = None
    ) -> Plan | None:
        """The plan of a comparison, with the memory per device; `None` if the models are small enough to need no plan.

        :param processes: number of devices that train one model.
        :param parallel: distribution of the model over them.
        :param memory: memory per device, bytes; by default that of the device for which times are estimated.
        """
        return None

    def stochastic_depth(self, settings: S) -> float:
        """Maximum drop probability of a branch, see :func:`mixln.from_config`."""
        return 0.0

    def tokenizer(self, data: TaskData[D]) -> PreTrainedTokenizerBase:
        """The tokenizer of its data, for the chain."""
        raise NotImplementedError(f"task {self.name} has no chain; its settings refuse one")

    def answers(
        self, store: Store, rows: Sequence[PlacementSummary], results: Sequence[TrialResult], data: TaskData[D]
    ) -> tuple[PlacementPredictions, ...]:
        """Predictions on held-out examples; empty if the task keeps none."""
        return ()


@dataclass(frozen=True, kw_only=True)
class TrainingLength:
    """Training length given by the settings: `steps` of sequences of `sequence_length` tokens, or `epochs`."""

    steps: int | None = None
    sequence_length: int | None = None
    epochs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated cost of a comparison.

    :param parameters: parameters of a model.
    :param flops: floating-point operations of all trials.
    :param hours: time of all trials on one device.
    :param tokens: tokens per trial, for text.
    :param steps: optimizer steps per trial, for images; each of `images` images.
    :param per_image: training operations per image.
    """

    parameters: int
    flops: float
    hours: float
    tokens: float | None = None
    steps: int | None = None
    images: int | None = None
    per_image: float | None = None
