"""Paired comparison of two models on the same questions."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from mixln.evaluation.results import Pair, Scores, TaskMetric

CONFIDENCE = 0.95
"""Confidence level of the intervals."""


def pairs(model: Scores, baseline: Scores) -> tuple[Pair, ...]:
    """The differences of two models in every metric that is a mean over questions and has the same number of them."""
    results = []
    for score in model.scores:
        other = baseline.score(score.task)
        for metric in score.metrics:
            against = other.metric(metric.name) if other else None
            if against is not None and metric.values and len(metric.values) == len(against.values):
                results.append(_pair(score.task, model.model, baseline.model, metric, against))
    return tuple(results)


def _pair(task: str, model: str, baseline: str, metric: TaskMetric, against: TaskMetric) -> Pair:
    """D = Σ (aᵢ − bᵢ) / Σ wᵢ, a ratio estimator with the standard error √(n/(n−1) Σ (aᵢ − bᵢ − D wᵢ)²) / Σ wᵢ."""
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
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, max(1, count - 1))) * error
        low, high = difference - half, difference + half
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
    """Interval and p-value of the difference of two accuracies over n = `count` questions.

    The p-value is that of McNemar's exact test. Under its null hypothesis each of the m = better + worse questions that only one model
    answers correctly is equally likely to be either model's. The interval is m/n (2q − 1) for q in the Clopper-Pearson interval of
    better/m; it excludes 0 if and only if p < 0.05. If the models agree on all questions, it is ±(1 − 0.025^(1/n)): a larger rate of
    disagreement would have shown itself in n questions with a probability of at least 97.5%.
    """
    if better + worse == 0:
        half = 1 - ((1 - CONFIDENCE) / 2) ** (1 / count)
        return -half, half, 1.0
    test = stats.binomtest(better, better + worse)
    interval = test.proportion_ci(CONFIDENCE)
    low, high = ((better + worse) / count * (2 * share - 1) for share in (interval.low, interval.high))
    return float(low), float(high), float(test.pvalue)
