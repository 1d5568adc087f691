"""Sentences of the verdict on a comparison."""

from __future__ import annotations

from mixln.compare.findings import (
    AgainstBaseline,
    FailedTrials,
    FewSeeds,
    InitsDiffer,
    Leader,
    LengthCaveat,
    NothingTrained,
    PlacementMean,
    RunnerUp,
    SingleLearningRate,
    StallRule,
    TunedOnHeldOut,
    UncorrectedSelection,
    findings,
)
from mixln.compare.metrics import Measured
from mixln.compare.results import Summary, TrialLength
from mixln.compare.tasks import TASKS
from mixln.findings import Finding
from mixln.metrics import Metric
from mixln.report.wording.nouns import nouns
from mixln.report.wording.phrases import (
    NO_CLAIM,
    NOT_SIGNIFICANT,
    TUNED,
    at_rate,
    beside,
    differs,
    extended,
    joined,
    listed,
    name,
    plural,
    rates,
)


def verdict(summary: Summary) -> tuple[str, ...]:
    """The sentences, most important first. A command to run next is enclosed in backticks and complete."""
    return tuple(sentence(finding, summary.task) for finding in findings(summary))


def sentence(finding: Finding, task: str) -> str:
    """The sentence on one finding."""
    metric = TASKS[task].metrics.ranking
    match finding:
        case NothingTrained():
            return "No trial trained: every one diverged, stalled or failed. Lower the learning rate, or train for more steps."
        case Leader():
            return _leader(finding, metric, task)
        case RunnerUp():
            return _runner_up(finding, metric)
        case AgainstBaseline():
            return _against(finding, metric)
        case FailedTrials():
            return _failed(finding)
        case StallRule():
            return f"Stalled: {nouns(task).stalled.format(metric.say_value(finding.value))}."
    return _caveat(finding, task)


def length(value: TrialLength, task: str) -> str:
    """`307,200 tokens in 300 steps`."""
    passes = f" ({value.passes:.3g} passes)" if value.passes is not None else ""
    predicted = "" if value.predicted is None else f", {value.predicted:.0%} of them predicted,"
    return f"{value.amount:,} {nouns(task).units}{passes}{predicted} in {value.steps:,} steps"


def _caveat(finding: Finding, task: str) -> str:
    """Sentences on limits of the conclusions."""
    match finding:
        case UncorrectedSelection():
            return (
                f"The leader was selected among {finding.placements} placements, and the intervals are not corrected for multiple "
                "comparisons: if all placements were equal, the probability of at least one significant difference would exceed 5%."
            )
        case SingleLearningRate():
            return (
                f"A single learning rate ({finding.learning_rate:g}) does not rank placements: each has its own optimum, and the order "
                f"may reverse at another. Add learning rates: {extended(finding.folder, f'--learning-rates {rates(finding.proposed)}')}."
            )
        case TunedOnHeldOut():
            return (
                f"The best learning rate was selected on the held-out {nouns(task).data} and seeds that are reported, so every result "
                f"is slightly optimistically biased.{_edge(finding)}"
            )
        case InitsDiffer():
            groups = "; ".join(f"{init}: {listed(placements)}" for init, placements in finding.inits.items())
            return (
                f"The placements have different initialisations ({groups}), as their authors recommend; part of a difference may be due "
                "to the initialisation. Use --init to hold it fixed."
            )
        case FewSeeds():
            few = (
                f"{finding.seeds} seeds give wide intervals" if finding.seeds > 1 else "A single seed gives no interval"
            )
            axis = f"--seeds {' '.join(map(str, finding.proposed))}"
            return f"{few}; add seeds: {extended(finding.folder, axis)}."
        case LengthCaveat():
            return (
                f"Each trial was trained on {length(finding.length, task)}. With longer training or a larger model the order may differ, "
                "as it does between published comparisons."
            )
    raise TypeError(f"no sentence for {finding!r}")


def _leader(finding: Leader, metric: Metric[Measured], task: str) -> str:
    lead, baseline = finding.leader, name(finding.baseline)
    role = "The baseline " if lead.subject == finding.baseline else ""
    best = "lowest" if metric.lower_is_better else "highest"
    among = f" of the placements that trained at {lead.finished} of {lead.seeds} seeds" if finding.of_survivors else ""
    at = TUNED if finding.tuned else at_rate(lead.learning_rate)
    text = f"{role}{name(lead.subject)} has the {best} held-out {metric.name}{among}, {_value(lead, metric)}, {at}"
    match finding.judgement:
        case "single-seed":
            return f"{text}. {NO_CLAIM}"
        case "no-rival":
            return f"{text}; no other placement trained."
        case "separated-from-all":
            return f"{text}; its difference from every other placement that trained is significant (95% interval excludes zero)."
        case "not-separated":
            close = listed(subject.placement for subject in finding.unseparated)
            return f"{text}, but its difference from {close} is {NOT_SIGNIFICANT}."
        case "no-common-seed":
            return f"{text}; it has no seed in common with the baseline {baseline}."
    assert finding.interval is not None
    return (
        f"{text}: {differs(metric, finding.interval)} against the baseline {baseline}. {_significance(finding, task)}"
    )


def _significance(finding: Leader, task: str) -> str:
    """Interprets the interval of the leader's difference from the baseline."""
    data = nouns(task).data
    where = f"On this model and {'these' if data.endswith('s') else 'this'} {data}, at this training length" + (
        "" if finding.tuned else " and learning rate"
    )
    return {
        "baseline-untrained": "The baseline did not train at any seed, so this does not compare two trained models.",
        "single-pair": "Only one seed is common to both: there is no confidence interval, and no claim can be made.",
        "stalled-left-out": "Stalled trials are excluded, so this does not show which of the two trains more reliably.",
        "identical-differences": "The difference is identical at every seed, so the variation between seeds is unknown and no claim can "
        "be made.",
        "significant": f"The 95% interval excludes zero. {where}, the difference is larger than the variation between seeds.",
        "not-significant": f"The 95% interval includes zero: the difference is {NOT_SIGNIFICANT}.",
    }[finding.judgement]


def _runner_up(finding: RunnerUp, metric: Metric[Measured]) -> str:
    second = finding.runner_up
    judgements = {"single-pair": "", "behind": ", significantly worse", "not-significant": f", {NOT_SIGNIFICANT}"}
    return (
        f"The runner-up, {name(second.subject)}, has {metric.name} {_value(second, metric)}: {differs(metric, finding.interval)} "
        f"against {name(finding.leader)}{judgements[finding.judgement]}."
    )


def _against(finding: AgainstBaseline, metric: Metric[Measured]) -> str:
    subject, baseline, interval = name(finding.subject), name(finding.baseline), finding.interval
    if interval is None:
        return f"{subject} has no held-out {metric.name} to compare with {baseline}."
    text = f"{subject} against {baseline}: {differs(metric, interval)} in {metric.name}"
    if finding.tuned:
        text += f", {TUNED}"
    if finding.common is not None:
        text += f"; {differs(metric, finding.common)} at the common learning rate {finding.common_rate:g}"
    pairs = f"over the {interval.pairs} of {finding.seeds} seeds"
    stalled = [side for side, count in ((subject, finding.stalled), (baseline, finding.baseline_stalled)) if count]
    return {
        "no-value": text,
        "some-stalled": f"{text}, {pairs} at which both trained; {subject} stalled at {finding.stalled}, {baseline} at "
        f"{finding.baseline_stalled}.",
        "missing-pairs": f"{text}, {pairs} for which both have a value.",
        "single-pair": f"{text}.",
        "untrained": f"{text}; {joined(stalled)} stalled at every seed, so this does not compare two trained models.",
        "better": f"{text}: significantly better than the baseline.",
        "worse": f"{text}: significantly worse than the baseline.",
        "not-significant": f"{text}: {NOT_SIGNIFICANT}.",
    }[finding.judgement]


def _failed(finding: FailedTrials) -> str:
    counts = {"diverged": finding.diverged, "stalled": finding.stalled, "failed with an error": finding.failed}
    ends = listed(f"{count} of {plural(finding.seeds, 'seed')} {end}" for end, count in counts.items() if count)
    return f"{name(finding.subject)} {at_rate(finding.learning_rate)}: {ends}."


def _value(standing: PlacementMean, metric: Metric[Measured]) -> str:
    return metric.say_briefly(standing.value) + beside(standing.stalled)


def _edge(finding: TunedOnHeldOut) -> str:
    if not finding.at_edge:
        return ""
    placements = listed(subject.placement for subject in finding.at_edge)
    return f" That of {placements} is at the edge of the grid: a wider grid may contain a better one."
