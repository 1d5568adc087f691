"""Titles, headings and captions of tables."""

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
"""lm-eval's name of a task → its name in papers."""
CHAIN_TASKS = "Task accuracy, as in Table 2 of the Mix-LN paper"
CHAIN_TASKS_CAPTION = (
    "Accuracy in percent, mean over seeds with 95% interval; difference: of the mean, in points, paired by seed."
)
CHAIN_TRAININGS = {
    "Fine-tuning and reward model": {
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
"""Title of a table → name of a measurement of a chain → its heading."""
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
"""Headings of the table of trials; the metrics are inserted before the seconds."""


@dataclass(frozen=True, kw_only=True)
class Heading:
    """The heading of a column.

    :param full: heading outside a group of columns.
    :param sub: heading below that of a group.
    :param short: heading in a terminal.
    """

    full: str
    sub: str
    short: str

    @classmethod
    def of(cls, text: str) -> Heading:
        """The same text in all three places."""
        return cls(full=text, sub=text, short=text)


def best_rate(*, tuned: bool) -> Heading:
    """Heading of the learning rate of a row."""
    return Heading(full="best learning rate" if tuned else LEARNING_RATE, sub=LEARNING_RATE, short="lr")


def metric(metric: Metric) -> Heading:
    """Heading of a metric."""
    return Heading(full=metric.name, sub=metric.name, short=metric.short or metric.name)


def at_common(name: str, rate: float) -> Heading:
    """Heading of a metric at the common learning rate."""
    return Heading(full=f"{name} at {formats.learning_rate(rate)}", sub=name, short=name)


def difference(baseline: str, rate: float | None = None) -> Heading:
    """Heading of the difference from the baseline.

    :param rate: the common learning rate, if the difference is at that.
    """
    at = "" if rate is None else f" at {formats.learning_rate(rate)}"
    return Heading(full=f"{difference_from(baseline)}{at}", sub="difference", short="difference")


def difference_from(baseline: str) -> str:
    """Heading of a column of differences."""
    return f"difference from {baseline}"


def throughput(task: str) -> Heading:
    """Heading of tokens or images per second."""
    words = nouns(task)
    return Heading(full=f"{words.units}/s", sub=f"{words.units}/s", short=words.throughput)


def each_placement(group: str) -> str:
    """Title of a table in the terminal."""
    return f"Each placement {group}"


def comparison(task: str, baseline: str, *, tuned: bool) -> str:
    """Caption of the table of placements."""
    metrics = TASKS[task].metrics
    ranking = metrics.ranking
    unit = f"{'percent' if ranking.logarithmic else 'percentage points'} of {ranking.name}"
    text = (
        f"Difference: {unit} against {baseline}, paired by seed, with its 95% confidence interval; "
        f"{'negative' if ranking.lower_is_better else 'positive'} is better. {capitalised(ranking.name)} and difference are over the seeds "
        "that trained, if some did. Ended: trials that finished, and how the others ended"
    )
    if tuned:
        beside = listed(metric.name for metric in metrics.beside)
        text += f" (all learning rates; {beside} and {nouns(task).units}/s are at the best one)"
    return text + "."


def scores(*, shares: bool, errors: bool, chance: bool, pairs: bool) -> str:
    """Caption of the tables of an evaluation.

    :param shares: whether they contain accuracies; the other arguments likewise.
    """
    parts = (
        (shares, "Accuracies in percent."),
        (errors, "±: the standard error of lm-eval."),
        (chance, "Chance level: expected accuracy of a random choice."),
        (
            pairs,
            "Differences: on the same questions, accuracies in percentage points; 95% interval and p by McNemar's exact test where answers "
            "are right or wrong, else by Student's t-test.",
        ),
    )
    return " ".join(text for present, text in parts if present)


def training(held_out: int, steps: int) -> tuple[str, str, str]:
    """Headings of the table of one training."""
    return f"{held_out:,} held out", "before", f"after {steps:,} steps"


def blocks(name: str, measure: str, count: int) -> str:
    """Title of a table of blocks of layers."""
    return f"{name}: blocks of layers skipped, {measure} ({count})"


def every_layer(name: str, layers: int) -> str:
    """Title of a table of layers."""
    return f"{name}: every layer ({layers})"


LAYER = ("layer", "layer")
ANGLE = ("angle between input and output, fraction of π", "angle\n/ π")
INFLUENCE = "block influence"
GRADIENT_NORM = ("gradient norm", "gradient\nnorm")
STREAM_VARIANCE = ("variance of the stream after the layer", "stream\nvariance")
IDENTITY = "largest singular value of J − I"
DROP = "ΔP"
ONLY_ATTENTION = ("only the attention zeroed", f"{DROP}, no\nattention")
ONLY_FEED_FORWARD = ("only the feed-forward zeroed", f"{DROP}, no\nfeed-fwd")


def drop(of: str) -> str:
    """Heading of drops, with their unit or measure."""
    return f"{DROP}, {of}"


def zeroed(heading: str) -> tuple[str, str]:
    """Full and short heading of drops with zeroed branches."""
    return f"{heading}, branches zeroed", f"{DROP}\nzeroed"


def estimate(unit: str) -> str:
    """Heading of first-order estimates."""
    return f"first-order estimate of {DROP}, {unit}"


def gradient_norm(branch: str) -> str:
    """Heading of the gradient norms of a branch."""
    return f"gradient norm, {branch}"


def pairs(models: Iterable[str], first: str) -> tuple[str, ...]:
    """Headings of the differences from the first model."""
    return tuple(f"{model} − {first}" for model in models)
