"""Performance drop by lm-eval tasks. Needs the optional package lm-eval."""

from __future__ import annotations

import logging
from typing import Any

import torch

from mixln.diagnostics.drop import removal
from mixln.diagnostics.results import Drops
from mixln.diagnostics.stack import Stack, evaluating
from mixln.errors import SettingsError
from mixln.evaluation.harness import Harness
from mixln.evaluation.results import TaskMetric

log = logging.getLogger(__name__)


def task_drops(harness: Harness, stack: Stack, tokenizer: Any, *, batch_size: int) -> tuple[Drops, ...]:
    """The performance drop of every skipped layer on each task, from one evaluation of the whole model and one per layer.

    ΔP is the mean over questions of the task's first metric without the layer, minus that of the whole model. Intervals are over
    questions.

    :raises SettingsError: if a task has no metric that is a mean over questions.
    """
    results = []
    for name in harness.names:
        whole = _metric(harness, name, stack, tokenizer, batch_size)
        values, weights = _tensor(whole.values), _tensor(whole.weights or (1.0,) * len(whole.values))
        drops = []
        for index in range(len(stack)):
            log.info(f"{name}: without layer {index + 1} of {len(stack)}")
            with stack.skipping([index]):
                without = _metric(harness, name, stack, tokenizer, batch_size)
            drops.append(removal(index, index, _tensor(without.values), values, weights))
        results.append(
            Drops(
                measure=whole.name,
                task=name,
                unit="mean over questions",
                better="higher" if whole.higher_is_better else "lower",
                original=(values.sum() / weights.sum()).item(),
                skipped=tuple(drops),
                tokens=len(values),
                sequences=len(values),
            )
        )
    return tuple(results)


def _metric(harness: Harness, name: str, stack: Stack, tokenizer: Any, batch_size: int) -> TaskMetric:
    with evaluating(stack.model):
        score = harness.score(name, stack.model, tokenizer, batch_size=batch_size)
    if metric := next((metric for metric in score.metrics if metric.values), None):
        return metric
    raise SettingsError(f"tasks: {name} has no metric that is a mean over questions; choose another task")


def _tensor(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)
