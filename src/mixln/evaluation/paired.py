"""Two models on the same questions."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from mixln.evaluation.results import Pair, Scores, TaskMetric

CONFIDENCE = 0.95


def pairs(model: Scores, baseline: Scores) -> tuple[Pair, ...]:
    """The difference of two models by every metric that is a mean over questions and was asked on the same ones."""
    found = []
    for score in model.scores:
        other = baseline.score(score.task)
        for metric in score.metrics:
            against = other.metric(metric.name) if other else None
            if against is not None and metric.values and len(metric.values) == len(against.values):
                found.append(_pair(score.task, model.model, baseline.model, metric, against))
    return tuple(found)


def _pair(task: str, model: str, baseline: str, metric: TaskMetric, against: TaskMetric) -> Pair:
    """D = Σ (aᵢ − bᵢ) / Σ wᵢ, with the standard error √(n/(n−1) Σ (aᵢ − bᵢ − D wᵢ)²) / Σ wᵢ of a ratio."""
    a, b = np.array(metric.values), np.array(against.values)
    count = len(a)
    weights = np.array(metric.weights) if metric.weights else np.ones(count)
    difference = float((a - b).sum() / weights.sum())
    residuals = a - b - difference * weights
    error = math.sqrt(count / max(1, count - 1) * float((residuals**2).sum())) / float(weights.sum())
    sign = 1 if metric.higher_is_better else -1
    better, worse = int((sign * (a - b) > 0).sum()), int((sign * (a - b) < 0).sum())
    if set(np.concatenate([a, b])) <= {0.0, 1.0}:
        low, high, p = _exact(better, worse, count)
    else:
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, max(1, count - 1))) * error
        low, high = difference - reach, difference + reach
        p = float(2 * stats.t.sf(abs(difference) / error, max(1, count - 1))) if error else float(difference == 0)
    return Pair(
        task=task,
        metric=metric.name,
        model=model,
        baseline=baseline,
        difference=difference,
        low=low,
        high=high,
        p=p,
        better=better,
        worse=worse,
    )


def _exact(better: int, worse: int, count: int) -> tuple[float, float, float]:
    """Interval and p of the difference of two shares of `count` questions, from those that one model alone answers rightly.

    p is McNemar's exact test: of m = better + worse such questions, each is as likely one model's as the other's. The interval is
    m/n (2q − 1) for q in Clopper and Pearson's interval of better/m: it excludes 0 where p < 0.05. Where the models agree on every
    question, it is what one may have missed: ±(1 − 0.025^(1/n)).
    """
    if better + worse == 0:
        reach = 1 - ((1 - CONFIDENCE) / 2) ** (1 / count)
        return -reach, reach, 1.0
    test = stats.binomtest(better, better + worse)
    found = test.proportion_ci(CONFIDENCE)
    low, high = ((better + worse) / count * (2 * share - 1) for share in (found.low, found.high))
    return float(low), float(high), float(test.pvalue)
