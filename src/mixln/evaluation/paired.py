"""Two models on the same questions."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from mixln.evaluation.results import Metric, Pair, Scores

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


def _pair(task: str, model: str, baseline: str, metric: Metric, against: Metric) -> Pair:
    """D = Σ (aᵢ − bᵢ) / Σ wᵢ, with the standard error √(n/(n−1) Σ (aᵢ − bᵢ − D wᵢ)²) / Σ wᵢ of a ratio."""
    a, b = np.array(metric.values), np.array(against.values)
    count = len(a)
    weights = np.array(metric.weights) if metric.weights else np.ones(count)
    difference = float((a - b).sum() / weights.sum())
    residuals = a - b - difference * weights
    error = math.sqrt(count / max(1, count - 1) * float((residuals**2).sum())) / float(weights.sum())
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, max(1, count - 1))) * error
    sign = 1 if metric.higher_is_better else -1
    better, worse = int((sign * (a - b) > 0).sum()), int((sign * (a - b) < 0).sum())
    return Pair(
        task=task,
        metric=metric.name,
        model=model,
        baseline=baseline,
        difference=difference,
        low=difference - reach,
        high=difference + reach,
        p=_p(a, b, better, worse, difference, error),
        better=better,
        worse=worse,
    )


def _p(a: np.ndarray, b: np.ndarray, better: int, worse: int, difference: float, error: float) -> float:
    if set(np.concatenate([a, b])) <= {0.0, 1.0}:
        return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / error, max(1, len(a) - 1)))
