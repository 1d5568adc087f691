"""Results of a comparison, as frozen records: `chain-result.json` holds a :class:`ChainResult`, `results.json` a :class:`Summary`.

Losses are in nats per token or image: token-weighted means over the complete held-out set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mixln.data.image_dataset import ImagesInfo
from mixln.data.text import TextInfo
from mixln.diagnostics.results import Diagnosis
from mixln.evaluation.results import Scores
from mixln.placement.preflight import PlacementRisk
from mixln.records import derived
from mixln.runs.outcome import PostTrainingOutcome, Status, perplexity
from mixln.runs.provenance import Provenance
from mixln.runs.schema import Schema
from mixln.runs.trials import Trial, TrialResult

AVERAGE = "average"
"""Name of the mean over tasks in the figures of a chain."""
REWARD = "rlhf reward"
"""Name of the reward after RLHF in the figures of a chain."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean of paired differences with a 95% confidence interval (Student's t).

    :param mean: mean over pairs of the metric (loss in nats per token, where negative is better; or accuracy as a share, where positive
        is better) minus the baseline's at the same seed.
    :param low: lower bound; `None` with fewer than two pairs.
    :param high: upper bound.
    :param pairs: number of seeds at which both trials have a loss.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def pointlike(self) -> bool:
        """Whether all paired differences are equal, which happens with accuracies on few held-out images; this is not evidence."""
        return self.low is not None and self.low == self.high

    @property
    def excludes_zero(self) -> bool:
        """Whether the difference is significant; never for an interval without width."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0) and not self.pointlike


@dataclass(frozen=True, kw_only=True)
class Cell:
    """All seeds of one placement at one learning rate.

    Means are taken over the seeds that trained, or if none did, over those that stalled: see :func:`alike`.

    :param loss: mean held-out loss, nats per token or image; `None` if no trial has one.
    :param loss_deviation: standard deviation of the loss over seeds; `None` with fewer than two.
    :param figures: means of the other metrics of the last evaluations, see :class:`~mixln.runs.outcome.Outcome`.
    :param difference: paired difference from the baseline placement at the baseline's learning rate of the same column
        (best against best, common against common); `None` for the baseline itself or without pairs.
    """

    learning_rate: float
    seeds: int
    finished: int
    stalled: int
    diverged: int
    failed: int
    loss: float | None
    loss_deviation: float | None
    bits_per_byte: float | None
    tokens_per_second: float | None
    figures: dict[str, float] = field(default_factory=dict)
    difference: Interval | None = None

    @derived
    def perplexity(self) -> float | None:
        """exp(mean loss)."""
        return perplexity(self.loss)

    @property
    def mixed(self) -> bool:
        """True if some seeds trained and others stalled; a mean over both would describe neither."""
        return self.finished > 0 and self.stalled > 0

    @property
    def stalled_beside(self) -> int:
        """Number of stalled seeds, if others trained."""
        return self.stalled if self.mixed else 0


@dataclass(frozen=True, kw_only=True)
class PlacementSummary:
    """One row of the table.

    :param placement: its specification, for example `mix(0.25)`.
    :param title: its name in the literature, for example `Mix-LN`.
    :param best: cell of its best learning rate, compared with the baseline's best.
    :param common: cell of the learning rate that all placements share in the table, compared with the baseline's there.
    :param cells: the cells of all learning rates, in ascending order.
    """

    placement: str
    title: str
    init: str
    best: Cell
    common: Cell
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class FrequencyBaseline:
    """Held-out metrics of a model that knows only the frequency of each token (unigram baseline) or class in the training data.

    :param loss: nats per token or image.
    :param figures: for images, the `accuracy` of always predicting the most frequent class.
    """

    loss: float
    bits_per_byte: float | None = None
    figures: dict[str, float] = field(default_factory=dict)

    @derived
    def perplexity(self) -> float:
        """exp(loss)."""
        return perplexity(self.loss)


@dataclass(frozen=True, kw_only=True)
class Interruption:
    """Reason why a chain ended before its last step.

    :param kind: `pretraining`: the trial has no model; `divergence`: a step diverged; `no-reward-model`: the baseline has none at this
        seed; `error`.
    :param step: name of the step; empty for the pre-training and for an error.
    :param status: status of the pre-training.
    :param optimizer_step: optimizer step at which the training diverged.
    :param reason: reason of the divergence, or text of the error.
    """

    kind: Literal["pretraining", "divergence", "no-reward-model", "error"]
    step: str = ""
    status: Status | None = None
    optimizer_step: int | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ChainResult:
    """Result of the chain for one trial.

    :param status: `finished`; `stopped` if a training diverged, which is a result; `failed` after an error.
    :param interruption: why it did not complete the chain; `None` if it did.
    :param finetuned: outcome of the fine-tuning, as `reward` and `rlhf` are of theirs; `None` if it did not take place.
    :param scores: task scores, without the answers to single questions, which are in the trial's folder.
    :param judge: folder name of the trial whose reward model was used, the same for all placements of a seed.
    """

    trial: Trial
    status: Literal["finished", "stopped", "failed"] = "finished"
    interruption: Interruption | None = None
    finetuned: PostTrainingOutcome | None = None
    scores: Scores | None = None
    reward: PostTrainingOutcome | None = None
    rlhf: PostTrainingOutcome | None = None
    judge: str = ""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds.

    :param low: lower bound of its 95% interval (Student's t); `None` with fewer than two seeds.
    :param high: upper bound.
    :param difference: paired difference from the baseline over seeds; `None` for the baseline itself, or without a pair.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    difference: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class ChainRow:
    """One placement, at its best learning rate of the pre-training.

    :param figures: name → mean over seeds: the accuracy of each task and their `average`, and metrics of trainings such as
        `finetune loss`, `reward accuracy`, `rlhf reward`; names that end in ` before` are values before the training.
    """

    placement: str
    title: str
    learning_rate: float
    figures: dict[str, Mean]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Results of the chain.

    :param steps: names of the steps.
    :param tasks: names of the evaluated tasks.
    :param chance: task → its chance level, a share; also for `average`.
    :param question_limit: maximum number of questions per task; `None` for all.
    """

    steps: tuple[str, ...]
    settings: dict[str, Any]
    tasks: tuple[str, ...]
    chance: dict[str, float]
    rows: tuple[ChainRow, ...]
    results: tuple[ChainResult, ...]
    question_limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Misclassification:
    """A held-out image that a model misclassifies.

    :param image: thumbnail, as a PNG in base64.
    :param label: name of its class.
    :param predicted: name of the predicted class.
    :param confidence: predicted probability of that class, in [0, 1].
    """

    image: str
    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class PlacementPredictions:
    """Predictions of a placement's classifiers, at its best learning rate, on the held-out images.

    :param reliability: for each confidence bin, over the seeds that trained (all if none did): mean confidence, accuracy and number
        of predictions.
    :param mistakes: the most confident errors of its lowest seed.
    """

    placement: str
    reliability: tuple[tuple[float, float, int], ...]
    mistakes: tuple[Misclassification, ...]


@dataclass(frozen=True, kw_only=True)
class TrialLength:
    """Training length of each trial.

    :param steps: optimizer steps.
    :param amount: tokens or images seen.
    :param passes: passes over the training data; `None` for text.
    :param predicted: share of the tokens that are predicted; `None` for all.
    """

    steps: int
    amount: int
    passes: float | None = None
    predicted: float | None = None


@dataclass(frozen=True, kw_only=True)
class DuplicatePlacement:
    """Two specifications of the same placement of this model, such as `mix(0.25)` and `mix(3)` on 12 layers."""

    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class VersionChange:
    """A package whose version changed during the experiment."""

    package: str
    before: str
    now: str | None


@dataclass(frozen=True, kw_only=True)
class DiagnosisFailure:
    """A placement that could not be diagnosed.

    :param model: its label; `None` if no placement could be diagnosed.
    :param error: the error; empty if the placement has no finished trial with a checkpoint.
    """

    model: str | None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class UnequalSeeds:
    """The diagnosed trials have different seeds: placement → seed."""

    seeds: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class RunWarnings:
    """Warnings of a comparison.

    :param risks: known problems of training its placements.
    """

    risks: tuple[PlacementRisk, ...] = ()
    duplicates: tuple[DuplicatePlacement, ...] = ()
    version_changes: tuple[VersionChange, ...] = ()
    undiagnosed: tuple[DiagnosisFailure, ...] = ()
    unequal_seeds: UnequalSeeds | None = None

    @property
    def every(self) -> tuple[RunWarning, ...]:
        """All warnings, in the order in which they arise."""
        seeds = () if self.unequal_seeds is None else (self.unequal_seeds,)
        return (*self.risks, *self.duplicates, *self.version_changes, *self.undiagnosed, *seeds)


RunWarning = PlacementRisk | DuplicatePlacement | VersionChange | DiagnosisFailure | UnequalSeeds


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A complete comparison: all data of the table, the figures and the page.

    Its findings are computed from it and not stored: see :func:`mixln.compare.findings.findings`.

    :param task: a name in :data:`mixln.compare.tasks.TASKS`.
    :param settings: the settings of the experiment, as in `experiment.json`.
    :param folder: folder of the experiment.
    :param parameters: parameters of the largest model.
    :param length: training length of each trial.
    :param text: training text of language models.
    :param images: training images of classifiers.
    :param diagnoses: diagnoses of the trials that were diagnosed.
    :param chain: results of the chain; `None` without one.
    :param answered: predictions of image classifiers on held-out images.
    """

    task: str = "language"
    settings: dict[str, Any]
    folder: str
    parameters: int
    length: TrialLength
    baseline: str
    floor: FrequencyBaseline
    placements: tuple[PlacementSummary, ...]
    trials: tuple[TrialResult, ...]
    text: TextInfo | None = None
    images: ImagesInfo | None = None
    provenance: Provenance = field(default_factory=Provenance)
    warnings: RunWarnings = field(default_factory=RunWarnings)
    diagnoses: tuple[Diagnosis, ...] = ()
    chain: Chain | None = None
    answered: tuple[PlacementPredictions, ...] = ()

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """Every learning rate, in ascending order."""
        return tuple(sorted({cell.learning_rate for row in self.placements for cell in row.cells}))

    @property
    def labels(self) -> tuple[str, ...]:
        """A unique label for each placement: its title if that is unique, else its specification, else specification and init."""
        titles = Counter(row.title for row in self.placements)
        texts = Counter(row.placement for row in self.placements)

        def label(row: PlacementSummary) -> str:
            if titles[row.title] == 1:
                return row.title
            return row.placement if texts[row.placement] == 1 else f"{row.placement}, {row.init}"

        return tuple(label(row) for row in self.placements)


SUMMARY = Schema(
    kind="comparison",
    file="results.json",
    record=Summary,
    computed=("findings", "chain_findings", "diagnosis_findings"),
)


def alike(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The trials to average over: those that trained, or all if none did. A mean over both would describe neither."""
    finished = [result for result in results if result.status == "finished"]
    return finished or list(results)
