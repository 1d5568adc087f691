"""The words of tables: titles, headings and captions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mixln import formats
from mixln.compare.tasks import TASKS
from mixln.metrics import Metric
from mixln.report.wording.nouns import nouns
from mixln.report.wording.phrases import capitalised, listed

PLACEMENT, INIT, MODEL, TASK, METRIC = "placement", "init", "model", "task", "metric"
LEARNING_RATE, SEED, SEEDS, LAYERS, STEPS = "learning rate", "seed", "seeds", "layers", "steps"
BASELINE, CHANCE, MEAN, ENDED = "(baseline)", "chance level", "mean", "ended"
TUNED = "at its best learning rate"
INTERVAL = "95% interval"
TASK_NAMES = {
    "mmlu": "MMLU",
    "boolq": "BoolQ",
    "arc_easy": "ARC-e",
    "arc_challenge": "ARC-c",
    "piqa": "PIQA",
    "hellaswag": "HellaSwag",
    "openbookqa": "OBQA",
    "winogrande": "WinoGrande",
    "social_iqa": "SIQA",
    "commonsense_qa": "CSQA",
}
"""Tasks as papers write them."""
CHAIN_TASKS = "Tasks, as in Table 2 of the Mix-LN paper"
CHAIN_TASKS_CAPTION = (
    "Accuracy in percent, mean over seeds with 95% interval; difference: of the mean, in points, paired by seed."
)
CHAIN_TRAININGS = {
    "Learning on examples and pairs": {
        "finetune loss before": "held-out loss before",
        "finetune loss": "after fine-tuning",
        "reward accuracy": "reward model: pairs correct, %",
        "perplexity": "bits per byte of the held-out text",
    },
    "Reinforcement learning, as in Table 3 of the Mix-LN paper": {
        "rlhf reward": "final reward",
        "rlhf reward before": "reward before",
        "rlhf kl": "KL, nats",
        "rlhf length": "length, tokens",
        "rlhf accuracy before": "policy: pairs correct before, %",
        "rlhf accuracy": "after, %",
    },
}
"""Title of a table → figure of a chain → its heading."""
CHAIN_TRAININGS_CAPTION = (
    "On held-out data: means over seeds with 95% confidence intervals; differences are paired by seed."
)
TRIAL_COLUMNS = (
    PLACEMENT,
    INIT,
    LEARNING_RATE,
    SEED,
    "status",
    "reason",
    "step",
    "seconds",
    "first step, seconds",
    "layers compiled",
)
"""Headings of the table of trials; the metrics stand before the seconds."""


@dataclass(frozen=True, kw_only=True)
class Heading:
    """The heading of a column.

    :param full: standing alone; `sub` under the heading of its group, `short` where space is scarce.
    """

    full: str
    sub: str
    short: str

    @classmethod
    def of(cls, text: str) -> Heading:
        """The same everywhere."""
        return cls(full=text, sub=text, short=text)


def best_rate(*, tuned: bool) -> Heading:
    """The learning rate of a row."""
    return Heading(full="best learning rate" if tuned else LEARNING_RATE, sub=LEARNING_RATE, short="lr")


def metric(metric: Metric) -> Heading:
    """A number of each placement."""
    return Heading(full=metric.name, sub=metric.name, short=metric.short or metric.name)


def at_common(name: str, rate: float) -> Heading:
    """A number at the common learning rate."""
    return Heading(full=f"{name} at {formats.learning_rate(rate)}", sub=name, short=name)


def difference(baseline: str, rate: float | None = None) -> Heading:
    """The difference from the baseline; of the common learning rate where one is given."""
    at = "" if rate is None else f" at {formats.learning_rate(rate)}"
    return Heading(full=f"{difference_from(baseline)}{at}", sub="difference", short="difference")


def difference_from(baseline: str) -> str:
    """A column of differences."""
    return f"difference from {baseline}"


def throughput(task: str) -> Heading:
    """Tokens or images a second."""
    words = nouns(task)
    return Heading(full=f"{words.units}/s", sub=f"{words.units}/s", short=words.throughput)


def at_rate(rate: float) -> str:
    """The heading over the columns of the common learning rate."""
    return f"at learning rate {formats.learning_rate(rate)}"


def each_placement(group: str) -> str:
    """The title of a table of the terminal."""
    return f"Each placement {group}"


def comparison(task: str, baseline: str, *, tuned: bool) -> str:
    """The caption of the table of placements."""
    metrics = TASKS[task].metrics
    ranking = metrics.ranking
    said = f"{'percent' if ranking.logarithmic else 'percentage points'} of {ranking.name}"
    text = (
        f"Difference: {said} against {baseline}, paired by seed, with its 95% confidence interval; "
        f"{'negative' if ranking.lower_is_better else 'positive'} is better. {capitalised(ranking.name)} and difference are over the seeds "
        "that trained, where some did. Ended: trials that finished, and how the others ended"
    )
    if tuned:
        beside = listed(metric.name for metric in metrics.beside)
        text += f" (all learning rates; {beside} and {nouns(task).units}/s are at the best one)"
    return text + "."


def scores(*, shares: bool, errors: bool, chance: bool, pairs: bool) -> str:
    """The caption of an evaluation's tables, as far as they have what it explains."""
    parts = (
        (shares, "Accuracies in percent."),
        (errors, "±: the standard error of lm-eval."),
        (chance, "Chance level: expected of a random choice."),
        (
            pairs,
            "Differences: on the same questions, accuracies in points; 95% interval and p by McNemar's exact test "
            "where answers are right or "
            "wrong, else by Student's t.",
        ),
    )
    return " ".join(text for present, text in parts if present)


def training(held_out: int, steps: int) -> tuple[str, str, str]:
    """The headings of one training's table."""
    return f"{held_out:,} held out", "before", f"after {steps:,} steps"


def blocks(name: str, measure: str, count: int) -> str:
    """The title of a table of blocks of layers."""
    return f"{name}: blocks of layers skipped, {measure} ({count})"


def every_layer(name: str, layers: int) -> str:
    """The title of a table of layers."""
    return f"{name}: every layer ({layers})"


LAYER = ("layer", "layer")
ANGLE = ("angle between input and output, fraction of π", "angle\n/ π")
INFLUENCE = "block influence"
GRADIENT_NORM = ("gradient norm", "gradient\nnorm")
STREAM_VARIANCE = ("variance of the stream after it", "stream\nvariance")
IDENTITY = "largest singular value of J − I"
DROP = "ΔP"


def drop(of: str) -> str:
    """A column of drops, by a unit or a measure."""
    return f"{DROP}, {of}"


def zeroed(heading: str) -> tuple[str, str]:
    """The same with zeroed branches, and in short."""
    return f"{heading}, branches zeroed", f"{DROP}\nzeroed"


def estimate(unit: str) -> str:
    """A column of first-order estimates."""
    return f"first-order estimate of {DROP}, {unit}"


def gradient_norm(branch: str) -> str:
    """A column of a branch's gradient norms."""
    return f"gradient norm, {branch}"


def pairs(models: Iterable[str], first: str) -> tuple[str, ...]:
    """Headings of the differences from the first model."""
    return tuple(f"{model} − {first}" for model in models)
