"""Results of a comparison, as frozen records: `chain-result.json` holds a :class:`ChainResult`, `results.json` is one :class:`Summary`.

Losses are in nats per token, token-weighted means over the whole held-out set.
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
"""Name of the mean over tasks among the figures of a chain."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean of paired differences with a 95% confidence interval (Student's t).

    :param mean: mean over pairs of what is compared (the loss in nats per token, where negative is better; or the accuracy as a
        share, where positive is better) minus the baseline's at the same seed.
    :param low: lower end; `None` with fewer than two pairs.
    :param high: upper end.
    :param pairs: number of seeds at which both trials have a loss.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def pointlike(self) -> bool:
        """Whether all pairs differ by exactly as much, as accuracies on few held-out images can: that is no certainty."""
        return self.low is not None and self.low == self.high

    @property
    def excludes_zero(self) -> bool:
        """Whether it tells the two apart; one without width does not."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0) and not self.pointlike


@dataclass(frozen=True, kw_only=True)
class Cell:
    """All seeds of one placement at one learning rate.

    Means are taken over the seeds that trained, or where none did over those that stalled: see :func:`alike`.

    :param loss: mean held-out loss, nats per token or image; `None` without any.
    :param loss_deviation: standard deviation of that loss over seeds; `None` with fewer than two.
    :param figures: means of what else the last evaluations found, see :class:`~mixln.runs.outcome.Outcome`.
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
        """True if some seeds trained and others stalled: no mean is near any of them."""
        return self.finished > 0 and self.stalled > 0


@dataclass(frozen=True, kw_only=True)
class PlacementSummary:
    """One row of the table.

    :param placement: its text, for example `mix(0.25)`.
    :param title: the name of the field, for example `Mix-LN`.
    :param best: its best learning rate, compared with the baseline's best.
    :param common: the learning rate that all placements share in the table, compared with the baseline there.
    :param cells: every learning rate, in ascending order.
    """

    placement: str
    title: str
    init: str
    best: Cell
    common: Cell
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class FrequencyBaseline:
    """What a model gets on what is held out that learnt only how frequent each token, or each class, is in the training data.

    :param loss: nats per token, or per image.
    :param figures: of images, the `accuracy` of naming the most frequent class.
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
    """Why a chain ended before its last step.

    :param kind: `pretraining`: the trial left no model; `divergence`: a step diverged; `no-reward-model`: the baseline has none at this
        seed; `error`.
    :param step: the step's name; empty for the pre-training and for an error.
    :param status: how the pre-training ended.
    :param optimizer_step: at which the step diverged.
    :param reason: why, as the training says; of an error, its text.
    """

    kind: Literal["pretraining", "divergence", "no-reward-model", "error"]
    step: str = ""
    status: Status | None = None
    optimizer_step: int | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ChainResult:
    """How far one trial went.

    :param status: `finished`; `stopped` where a training diverged, which is a result; `failed` for an error.
    :param interruption: why it did not get to the end; `None` if it did.
    :param scores: without the answers to single questions, which lie in the trial's folder.
    :param judge: the trial whose reward model trained it: one for all placements of a seed.
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

    :param low: lower end of its 95% interval (Student's t); `None` with fewer than two seeds.
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

    :param figures: name → mean over seeds. Of tasks, the accuracy, and `average` over them; of a training, for example
        `finetune loss`, `reward accuracy`, `rlhf reward`; a name that ends in ` before` is that of its start.
    """

    placement: str
    title: str
    learning_rate: float
    figures: dict[str, Mean]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """All trials after all steps.

    :param steps: their names.
    :param tasks: that were asked, in their order; `chance` is their chance level, by task and for `average`.
    :param question_limit: questions of each task that were asked; `None` for all.
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
    """A held-out image that a model gets wrong.

    :param image: a small PNG of it, in base64.
    :param label: the name of its class, `predicted` of the one that the model names.
    :param confidence: probability that the model gives to that, in [0, 1].
    """

    image: str
    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class PlacementPredictions:
    """What the classifiers of a placement, at its best learning rate, say of the held-out images.

    :param reliability: of each bin of confidence, over the seeds that trained (all where none did): mean confidence,
        accuracy, and how many answers are in it.
    :param mistakes: of its lowest seed, those of which it is surest.
    """

    placement: str
    reliability: tuple[tuple[float, float, int], ...]
    mistakes: tuple[Misclassification, ...]


@dataclass(frozen=True, kw_only=True)
class TrialLength:
    """How long each trial was trained.

    :param steps: optimizer steps.
    :param amount: tokens or images seen; `passes` over the training data, where they are counted.
    :param predicted: share of the tokens that are predicted; `None` for all.
    """

    steps: int
    amount: int
    passes: float | None = None
    predicted: float | None = None


@dataclass(frozen=True, kw_only=True)
class DuplicatePlacement:
    """Two texts that name the same placement of this model, such as `mix(0.25)` and `mix(3)` on 12 layers."""

    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class VersionChange:
    """A package whose version is not the same for all trials."""

    package: str
    before: str
    now: str | None


@dataclass(frozen=True, kw_only=True)
class DiagnosisFailure:
    """A placement that could not be diagnosed.

    :param model: its label; `None` if no placement could be diagnosed.
    :param error: why; empty if it has no finished trial with a checkpoint.
    """

    model: str | None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class UnequalSeeds:
    """Placement → seed of the trial that was diagnosed, where they are not all the same."""

    seeds: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class RunWarnings:
    """What a comparison warns of.

    :param risks: what is known against training its placements, before it began.
    """

    risks: tuple[PlacementRisk, ...] = ()
    duplicates: tuple[DuplicatePlacement, ...] = ()
    version_changes: tuple[VersionChange, ...] = ()
    undiagnosed: tuple[DiagnosisFailure, ...] = ()
    unequal_seeds: UnequalSeeds | None = None

    @property
    def every(self) -> tuple[RunWarning, ...]:
        """All of them."""
        seeds = () if self.unequal_seeds is None else (self.unequal_seeds,)
        return (*self.risks, *self.duplicates, *self.version_changes, *self.undiagnosed, *seeds)


RunWarning = PlacementRisk | DuplicatePlacement | VersionChange | DiagnosisFailure | UnequalSeeds


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A whole comparison: everything that the table, the figures and the page show.

    What it shows is computed from it: see :func:`mixln.compare.findings.findings`.

    :param task: a name in :data:`mixln.compare.tasks.TASKS`.
    :param settings: the settings of the experiment, as `experiment.json` holds them.
    :param folder: of the experiment.
    :param parameters: of the largest model.
    :param length: of each trial's training.
    :param text: that language models were trained on; `images` of classifiers.
    :param diagnoses: what each layer contributes, for the trials that were diagnosed.
    :param chain: what became of the trials in the steps after the pre-training; `None` without any.
    :param answered: of image classifiers, what they say of held-out images.
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
        """A different name for each placement: its title where that is enough, else its text, else its text and init."""
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
    """The trials that a mean may be taken over: those that trained, or where none did all others, never both."""
    finished = [result for result in results if result.status == "finished"]
    return finished or list(results)
