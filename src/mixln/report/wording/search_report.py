"""Wording of the tables and figures of stress tests and searches."""

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
KEYS = ("proxy trial, complete", "proxy trial, pruned", "full training, single seed")
POST_LAYERS = "Post-LN layers"
FINALISTS, RATES, PROXIES = "Full trainings", "Learning rates of the full trainings", "Proxy trials"
FINALISTS_HEAD = (PLACEMENT, POST_LAYERS, LEARNING_RATE, SEEDS, "perplexity", "difference from the choice")
PROXIES_HEAD = (PLACEMENT, "ended", POST_LAYERS, LEARNING_RATE, STEPS, "perplexity")
CHOSEN, UNTRAINED, SOME_UNTRAINED, BEHIND = "chosen", "did not train", "not all trained", "not trained further"
RATES_CAPTION = (
    "Perplexity. Starting from that of its best proxy trial, the learning rate of a candidate is raised as long as that lowers the loss, "
    "else lowered; it is also lowered if a seed does not train."
)


def stress_head(baseline: str, *, several_depths: bool) -> tuple[str, ...]:
    """Headings of the table of stability limits."""
    depths = (LAYERS,) if several_depths else ()
    return (PLACEMENT, *depths, INIT, "above it", "highest rate", f"times {baseline}'s")


def stress_caption(result: Stress) -> str:
    """Caption of the table of stability limits."""
    low, high = result.rates
    return (
        f"Highest learning rate before the training loss rose again, on a ramp from {low:g} to {high:g} in {result.steps:,} steps: "
        "geometric mean over seeds with its 95% confidence interval; the ratio is paired by seed. ≥: the ramp ended first, so the value is "
        "a lower bound."
    )


def spiked(count: int) -> str:
    """Number of seeds with a loss spike below the limit."""
    return f"{count} spiked and recovered"


def highest(rate: float | None, *, censored: bool, unknown: bool) -> str:
    """One stability limit.

    :param unknown: distinguishes, without a rate, an unknown limit from a model that never trained.
    """
    if rate is None:
        return "unknown" if unknown else "none"
    return f"{'≥ ' if censored else ''}{rate:.2g}"


def ramps(result: Stress, window: int) -> ChartText:
    """Loss against the rising learning rate."""
    return ChartText(
        title="Loss while the learning rate rises",
        caption=(
            f"Training loss against the current learning rate, one line per seed: running median over {window} records; faint lines: "
            f"single records. {CROSS}marks the highest learning rate that trains. A model whose line is at the dashed {UNIGRAM} has learnt "
            "only token frequencies."
        ),
        description="Line chart of the training loss against the learning rate. " + " ".join(stress_verdict(result)),
    )


def limits(result: Stress, *, by_depth: bool) -> ChartText:
    """The stability limits."""
    more = "" if by_depth else "; small dots: single seeds, which overlap if their limits are equal"
    return ChartText(
        title=STRESS_TITLE,
        caption=(
            f"On a logarithmic axis; {'higher' if by_depth else 'further right'} is more robust. Large markers: geometric mean over seeds, "
            f"with its 95% interval, clipped to the range of the ramp{more}."
        ),
        description=" ".join(stress_verdict(result)),
    )


def depth(layers: int) -> str:
    """Title of the panel of one depth."""
    return f"{layers} layers"


def seed(number: int) -> str:
    """Label of one seed."""
    return f"seed {number}"


def line(name: str, init: str) -> str:
    """Label of one placement and init."""
    return f"{name}, {init}"


def broke(name: str, ramp: Ramp) -> str:
    """Label of the point at which training became unstable."""
    assert ramp.breaking is not None
    return f"{name}: trains up to {ramp.rate:.2g}, then {ENDS[ramp.breaking.failure]}"


def ramp_name(ramp: Ramp) -> str:
    """Name of one ramp."""
    return f"{ramp.placement}, {ramp.layers} layers, {ramp.init}, seed {ramp.seed}"


def finalists_caption(steps: int) -> str:
    """Caption of the table of full trainings."""
    return (
        f"{steps:,} steps each. Perplexity of the mean held-out loss over the seeds with its 95% interval; differences are paired by seed. "
        "A candidate without seeds was dropped when learning rates were tuned."
    )


def rates_head(seeds: tuple[int, ...]) -> tuple[str, ...]:
    """Headings of the table of learning rates."""
    return (PLACEMENT, LEARNING_RATE, *(f"seed {seed}" for seed in seeds))


def tried(result: Search) -> ChartText:
    """All settings that were tried."""
    return ChartText(
        title="Settings tried",
        caption=(
            "Held-out perplexity, on a logarithmic axis, of every proxy trial that did not diverge and every full training that trained; "
            "lower is better. Trials differ in length: pruned ones have higher perplexity because they are shorter."
        ),
        description=" ".join(search_verdict(result)),
    )


def proxy(trial: Proxy) -> str:
    """Label of the point of a proxy trial."""
    return f"{full(trial.placement, trial.learning_rate)}: {trial.ended}, {trial.steps:,} steps"


def full(placement: str, learning_rate: float) -> str:
    """Label of the point of a full training."""
    return f"{placement} at {formats.learning_rate(learning_rate)}"


def seeds(numbers: tuple[int, ...]) -> str:
    """The seeds of a full training."""
    return listed(numbers) or formats.NOTHING


def post_layers(count: int) -> str:
    """Count of Post-LN layers."""
    return f"{count} {POST_LAYERS}"
