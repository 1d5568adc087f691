"""The words around the tables and figures of stress tests and searches."""

from __future__ import annotations

from mixln import formats
from mixln.report.wording.charts import CROSS, ChartText
from mixln.report.wording.nouns import NOUNS
from mixln.report.wording.phrases import listed
from mixln.report.wording.search import verdict as search_verdict
from mixln.report.wording.stress import ENDS
from mixln.report.wording.stress import verdict as stress_verdict
from mixln.report.wording.tables import INIT, LAYERS, LEARNING_RATE, PLACEMENT, SEEDS, STEPS
from mixln.search.results import Proxy, Ramp, Search, Stress

UNIGRAM = NOUNS["token"].floor
STRESS_TITLE = "The highest learning rate that trains"
TRAINING_LOSS = "training loss, nats per token"
HIGHEST_RATE = "highest learning rate that trains"
MEAN = "mean"
KEYS = ("proxy trial, whole", "proxy trial, pruned", "full training, a seed")
POST_LAYERS = "Post-LN layers"
FINALISTS, RATES, PROXIES = "Trained in full", "Learning rates at the full length", "Proxy trials"
FINALISTS_HEAD = (PLACEMENT, POST_LAYERS, LEARNING_RATE, SEEDS, "perplexity", "from the chosen")
PROXIES_HEAD = (PLACEMENT, "ended", POST_LAYERS, LEARNING_RATE, STEPS, "perplexity")
CHOSEN, UNTRAINED, SOME_UNTRAINED, BEHIND = "chosen", "did not train", "not all trained", "not trained further"
RATES_CAPTION = (
    "Perplexity. A candidate's learning rate is raised from that of its best proxy trial as long as that helps, else lowered; if a seed "
    "does not train, lowered."
)


def stress_head(baseline: str, *, several_depths: bool) -> tuple[str, ...]:
    """The headings of the table of limits."""
    depths = (LAYERS,) if several_depths else ()
    return (PLACEMENT, *depths, INIT, "above it", "highest rate", f"times {baseline}'s")


def stress_caption(found: Stress) -> str:
    """What the table of limits shows."""
    low, high = found.rates
    return (
        f"Learning rate up to which the training loss kept its progress, while the rate rose from {low:g} to {high:g} in {found.steps:,} "
        "steps: geometric mean over seeds, with its 95% confidence interval; the ratio is paired by seed. ≥: the ramp ended first."
    )


def spiked(count: int) -> str:
    """Seeds whose loss spiked below the limit."""
    return f"{count} spiked and recovered"


def highest(rate: float | None, *, censored: bool, unknown: bool) -> str:
    """A limit."""
    if rate is None:
        return "unknown" if unknown else "none"
    return f"{'≥ ' if censored else ''}{rate:.2g}"


def ramps(found: Stress, window: int) -> ChartText:
    """Loss against the rising learning rate."""
    return ChartText(
        title="Loss while the learning rate rises",
        caption=(
            f"Training loss against the current learning rate, one line a seed: the median of {window} records, and faintly each record. "
            f"{CROSS}marks the highest learning rate that trains. A line at the dashed {UNIGRAM} has learnt only token frequencies."
        ),
        description="Line chart of the training loss against the learning rate. " + " ".join(stress_verdict(found)),
    )


def limits(found: Stress, *, by_depth: bool) -> ChartText:
    """The limits."""
    more = "" if by_depth else "; small dots: single seeds, which overlap if they broke at the same record"
    return ChartText(
        title=STRESS_TITLE,
        caption=(
            f"On a logarithmic axis; {'higher' if by_depth else 'further right'} is more robust. Large markers: geometric mean over seeds, "
            f"with its 95% interval, as far as the ramp went{more}."
        ),
        description=" ".join(stress_verdict(found)),
    )


def depth(layers: int) -> str:
    """A panel of one depth."""
    return f"{layers} layers"


def seed(number: int) -> str:
    """A seed."""
    return f"seed {number}"


def line(name: str, init: str) -> str:
    """A line of one placement and init."""
    return f"{name}, {init}"


def broke(name: str, ramp: Ramp) -> str:
    """Where a ramp broke."""
    assert ramp.breaking is not None
    return f"{name}: trains up to {ramp.rate:.2g}, then {ENDS[ramp.breaking.failure]}"


def ramp_name(ramp: Ramp) -> str:
    """One ramp."""
    return f"{ramp.placement}, {ramp.layers} layers, {ramp.init}, seed {ramp.seed}"


def finalists_caption(steps: int) -> str:
    """What the table of full trainings shows."""
    return (
        f"{steps:,} steps each. Perplexity of the mean held-out loss over the seeds with its 95% interval; differences "
        f"are paired by seed. A "
        "candidate without seeds was dropped when learning rates were tuned."
    )


def rates_head(seeds: tuple[int, ...]) -> tuple[str, ...]:
    """The headings of the table of learning rates."""
    return (PLACEMENT, LEARNING_RATE, *(f"seed {seed}" for seed in seeds))


def tried(found: Search) -> ChartText:
    """Everything that was tried."""
    return ChartText(
        title="Settings tried",
        caption=(
            "Held-out perplexity, on a logarithmic axis, of every proxy trial that did not diverge and every full training that trained; "
            "lower is better. They differ in length, and pruned trials are higher for that alone."
        ),
        description=" ".join(search_verdict(found)),
    )


def proxy(each: Proxy) -> str:
    """A point of a proxy trial."""
    return f"{full(each.placement, each.learning_rate)}: {each.ended}, {each.steps:,} steps"


def full(placement: str, learning_rate: float) -> str:
    """A point of a full training."""
    return f"{placement} at {formats.learning_rate(learning_rate)}"


def seeds(numbers: tuple[int, ...]) -> str:
    """The seeds of a full training."""
    return listed(numbers) or formats.NOTHING


def post_layers(count: int) -> str:
    """A number of Post-LN layers."""
    return f"{count} {POST_LAYERS}"
