"""The tasks of a comparison: everything that differs between language models, image classifiers and others.

Nothing here needs torch: the methods of a task import what trains and plans when they are called.
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
    """Prepared data, with what is known of a comparison once they are there.

    :param source: the data themselves; they lie in `folder`.
    :param fingerprint: a hash of them.
    :param config: the stock config that fits them.
    :param length: of one trial's training.
    :param floor: the result of a model that knows nothing but frequencies.
    :param text: what is known of a text, `images` of images.
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
    """One task."""

    name: ClassVar[str]
    """Value of `--task`."""
    settings: ClassVar[type[GridSettings]]
    """Class of its settings, S."""
    entry: ClassVar[str]
    """Entry of its settings that names the data, and of `experiment.json` that holds their fingerprint."""
    head: ClassVar[str]
    """The head of its models, see :func:`mixln.from_config`."""
    metrics: ClassVar[TaskMetrics]
    """Metrics of its trials; `ranking` orders its placements."""

    @abstractmethod
    def config(self, settings: S) -> PreTrainedConfig:
        """The stock config of its models, before the data are known."""

    @abstractmethod
    def warms_up(self, settings: S) -> bool:
        """True if the learning rate warms up."""

    @abstractmethod
    def prepare(self, settings: S, config: PreTrainedConfig) -> TaskData[D]:
        """Prepares the data, or finds them in the cache.

        :param config: what :meth:`config` gave.
        """

    @abstractmethod
    def objective(self, settings: S, folder: Path) -> Objective[Any]:
        """The prepared data in a folder, with their trainer and evaluation."""

    @abstractmethod
    def trained_on(self, experiment: dict[str, Any], source: Source) -> Source:
        """The model of a trial, which then knows the data of its experiment: what it was trained on is not measured on.

        :raises ValueError: or `KeyError`, if the experiment is corrupt.
        """

    @abstractmethod
    def schedule(self, settings: S) -> TrainingLength:
        """Length of a training."""

    @abstractmethod
    def estimate(self, settings: S, trials: int) -> Estimate:
        """Estimated cost of a comparison; its data are not read."""

    def plan(
        self, settings: S, trials: int, *, processes: int = 1, parallel: Parallel = "ddp", memory: float | None = None
    ) -> Plan | None:
        """The plan of a comparison, with the memory of a device; `None` where models are small enough to need none.

        :param processes: devices that train one model together; `parallel` is what each holds of it.
        :param memory: of a device, bytes; left out, that of the one which times are estimated for.
        """
        return None

    def stochastic_depth(self, settings: S) -> float:
        """See :func:`mixln.from_config`."""
        return 0.0

    def tokenizer(self, data: TaskData[D]) -> PreTrainedTokenizerBase:
        """The tokenizer of its data, with which trials go on to later steps."""
        raise NotImplementedError(f"{self.name} has no steps after the pre-training, which its settings refuse")

    def answers(
        self, store: Store, rows: Sequence[PlacementSummary], results: Sequence[TrialResult], data: TaskData[D]
    ) -> tuple[PlacementPredictions, ...]:
        """Predictions on held-out examples; empty if the task keeps none."""
        return ()


@dataclass(frozen=True, kw_only=True)
class TrainingLength:
    """How long a training is by its settings: `steps` of sequences of `sequence_length` tokens, or `epochs`."""

    steps: int | None = None
    sequence_length: int | None = None
    epochs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cost of a comparison.

    :param parameters: of a model.
    :param flops: operations of all trials, which take `hours` of one device.
    :param tokens: of a trial; of images instead `steps` of so many `images`, of `per_image` operations each.
    """

    parameters: int
    flops: float
    hours: float
    tokens: float | None = None
    steps: int | None = None
    images: int | None = None
    per_image: float | None = None
