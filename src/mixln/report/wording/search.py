"""Sentences on the findings of a search for a share of Post-LN layers and a learning rate."""

from __future__ import annotations

from mixln.compare.metrics import PERPLEXITY
from mixln.findings import Finding
from mixln.report.wording.phrases import NO_CLAIM, NOT_SIGNIFICANT, differs, listed, plural
from mixln.search.findings import (
    Choice,
    NotChosen,
    NothingChosen,
    ProxyBias,
    RateAtEdge,
    SearchCost,
    TriedCounts,
    TuningEffort,
    UnknownLimits,
    search_findings,
)
from mixln.search.results import Search, Termination


def verdict(result: Search) -> tuple[str, ...]:
    """The choice, then its evidence and limits."""
    return tuple(map(sentence, search_findings(result)))


def sentence(finding: Finding) -> str:
    """The sentence on one finding."""
    match finding:
        case NothingChosen():
            reason = "No candidate trained at all seeds"
            if finding.without_post:
                reason = (
                    "No proxy trial with Post-LN layers fell below the unigram baseline, so none was trained in full"
                )
            return f"{reason}: nothing can be chosen. Search again with more --trials or --steps, in a new --out."
        case Choice():
            return _choice(finding)
        case NotChosen():
            return _not_chosen(finding)
    return _limits(finding)


def limit(rate: float, known: bool) -> str:
    """Stability limit for one number of Post-LN layers."""
    if known:
        return f"trains up to {rate:.2g}"
    return f"unknown: never below the unigram baseline; lowest loss at {rate:.2g}"


def _limits(finding: Finding) -> str:
    """Sentences on the evidence and its limits."""
    match finding:
        case TuningEffort():
            tried = listed(f"{placement} {proxies} + {full}" for placement, proxies, full in finding.tried)
            return (
                f"Learning rates tried (proxy trials + full trainings): {tried}. Placements tuned over more settings have an advantage, "
                "and the selected best is optimistically biased (winner's curse)."
            )
        case RateAtEdge():
            return (
                f"The best learning rate of {listed(finding.placements)} is at the edge of the range tried: a better one may lie "
                "beyond."
            )
        case TriedCounts():
            return f"Proxy trials had {listed(finding.counts)} of {finding.layers} layers Post-LN; no other counts were tried."
        case UnknownLimits():
            return (
                f"The stability limit with {listed(finding.counts)} Post-LN layers is unknown: the loss of so short a ramp never fell "
                "below the unigram baseline, so the learning rates tried there are guesses. Increase --steps, in a new --out."
            )
        case SearchCost():
            return (
                f"The search took as many steps as {finding.cost:.1f} full trainings ({plural(finding.proxies, 'proxy trial')}, of which "
                f"{finding.pruned} were pruned); a sweep over the seven shares of Table 5 of the Mix-LN paper at three learning rates, "
                f"with the same seeds, would take {finding.sweep}."
            )
        case ProxyBias():
            return "Proxy trials favour settings that learn fast; in longer training or for a larger model another setting may be best."
    raise TypeError(f"no sentence for {finding!r}")


def _choice(finding: Choice) -> str:
    chosen = finding.chosen
    interval = ""
    if chosen.low is not None and chosen.high is not None:
        interval = f" [{PERPLEXITY.say_value(chosen.low)}, {PERPLEXITY.say_value(chosen.high)}]"
    return (
        f"Use {chosen.placement} ({chosen.post_layers} of {finding.layers} layers Post-LN) at learning rate {chosen.learning_rate:g}: "
        f"held-out perplexity {PERPLEXITY.say_value(chosen.loss)}{interval} over {plural(len(chosen.seeds), 'seed')}."
    )


def _not_chosen(finding: NotChosen) -> str:
    name, interval = f"{finding.placement} at {finding.learning_rate:g}", finding.interval
    if finding.judgement == "behind-in-tuning":
        return f"{name} was worse when learning rates were tuned with one seed, and was not trained further."
    if interval is None:
        return f"{name} did not train at all seeds ({'; '.join(map(ending, finding.ended))})."
    text = f"{name}: perplexity {differs(PERPLEXITY, interval)} against the choice"
    return {
        "single-seed": f"{text}. {NO_CLAIM}",
        "worse": f"{text}, significantly worse.",
        "not-significant": f"{text}, {NOT_SIGNIFICANT}.",
    }[finding.judgement]


def ending(end: Termination) -> str:
    """How one training ended: `diverged: the loss is not finite`."""
    return f"{end.status}: {end.reason}" if end.reason else end.status
