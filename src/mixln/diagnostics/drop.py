"""Performance drop: what happens to a model without some of its layers. Shapes: B batch, T tokens, D hidden size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from mixln.diagnostics.measures import Measure
from mixln.diagnostics.results import Drop, Drops
from mixln.diagnostics.stack import Batch, Recording, Stack, evaluating, recording
from mixln.errors import DataError, SettingsError

MEMORY = 2 * 1024**3
"""Bytes that the kept inputs of the layers may take, unless said otherwise."""


@dataclass(frozen=True, kw_only=True)
class RemovedLayers:
    """The model without the layers `first`..`last`, counted from 0."""

    first: int
    last: int
    zeroed: bool = False


@torch.no_grad()
def performance_drop(
    stack: Stack,
    batches: Iterable[Batch],
    measure: Measure,
    *,
    blocks: Sequence[tuple[int, int]] = (),
    zeroed: bool = True,
    memory: int = MEMORY,
) -> Drops:
    """ΔP = P without the layer − P of the whole model, for every single layer (arXiv:2412.13795, equation 9), and for blocks.

    Exact, and at about half the cost of a forward pass a layer and definition: a model without layer l is run from layer l on, on the
    input of l that the whole model gave. In process: no weight is copied, no file written.

    :param measure: what P is; see :mod:`mixln.diagnostics.measures`.
    :param blocks: also these blocks of consecutive layers (first, last), counted from 1, for example (21, 24).
    :param zeroed: also each layer with its branches zeroed and its norms on the stream kept, where the branches are known.
    :param memory: bytes that the kept inputs of the layers may take; where they do not fit, only some are kept and the others
        computed again from those, with the same result.
    :raises SettingsError: if a block is not within the model.
    :raises CheckpointError: if a state is not finite; it names the first layer.
    """
    depth = len(stack)
    for first, last in blocks:
        if not 1 <= first <= last <= depth:
            raise SettingsError(
                f"blocks must lie within the layers 1 to {depth}, got {first}-{last}; name the first and the last layer"
            )
    singles = [RemovedLayers(first=index, last=index) for index in range(depth)]
    others = [RemovedLayers(first=first - 1, last=last - 1) for first, last in blocks]
    zeros = [RemovedLayers(first=i, last=i, zeroed=True) for i in range(depth)] if zeroed and stack.branches else []
    run: dict[RemovedLayers, list[Tensor]] = {}
    whole: list[Tensor] = []
    weights: list[Tensor] = []
    with evaluating(stack.model):
        for batch in batches:
            with recording(stack, batch, every=_every(stack, batch, memory)) as record:
                original = measure.run(stack, batch)
            if not run:
                passing = _passing(record) if zeros else set()
                run = {v: [] for v in (*singles, *others, *(v for v in zeros if v.first not in passing))}
            whole.append(measure.rows(original, original, batch))
            weights.append(measure.weights(batch))
            for variant, result in _results(record, measure, list(run)):
                run[variant].append(measure.rows(result, original, batch))
    weight, base = torch.cat(weights) if weights else torch.zeros(0), torch.cat(whole) if whole else torch.zeros(0)
    if not weight.sum() > 0:
        raise DataError(f"the {measure.name} needs at least one predicted token or image, got none; give more text")

    def drop(variant: RemovedLayers) -> Drop:
        rows = run.get(variant) or run[RemovedLayers(first=variant.first, last=variant.last)]
        return removal(variant.first, variant.last, torch.cat(rows), base, weight)

    return Drops(
        measure=measure.name,
        unit=measure.unit,
        better=measure.better,
        original=(base.sum() / weight.sum()).item(),
        skipped=tuple(map(drop, singles)),
        zeroed=tuple(map(drop, zeros)),
        blocks=tuple(map(drop, others)),
        tokens=int(weight.sum().item()),
        sequences=len(weight),
    )


def _results(
    record: Recording, measure: Measure, variants: Sequence[RemovedLayers]
) -> Iterator[tuple[RemovedLayers, Tensor]]:
    """Runs every variant, in the order of their first layers."""
    for index, x_BTD in enumerate(record.inputs()):
        for variant in variants:
            if variant.first == index:
                with record.starting(variant.last + 1, _given(record, variant, x_BTD)):
                    result = measure.run(record.stack, record.batch)
                yield variant, result


def _given(record: Recording, variant: RemovedLayers, x_BTD: Tensor) -> Tensor:
    """What the layer after a variant's last one gets, where `x_BTD` enters its first."""
    if not variant.zeroed:
        return record.stack.entry(x_BTD) if variant.first == 0 else x_BTD
    with record.stack.zeroing(variant.first):
        return record.advance(variant.first, x_BTD)


def _passing(record: Recording) -> set[int]:
    """The layers that pass on exactly what they are given when their branches are zero, as all of Pre-LN do: for these, both
    definitions are one, and one run serves both."""
    found = set()
    for index, x_BTD in enumerate(record.inputs()):
        skipped = _given(record, RemovedLayers(first=index, last=index), x_BTD)
        if torch.equal(skipped, _given(record, RemovedLayers(first=index, last=index, zeroed=True), x_BTD)):
            found.add(index)
    return found


def _every(stack: Stack, batch: Batch, memory: int) -> int:
    """Of how many layers one keeps its input, so that the kept inputs of this batch take at most `memory` bytes."""
    return max(1, math.ceil(len(stack) * stack.state_bytes(batch) / max(memory, 1)))


def removal(first: int, last: int, changed: Tensor, whole: Tensor, weight: Tensor) -> Drop:
    """The drop of the layers `first`..`last`, counted from 0, from the measure's sums over each sequence, all (N,).

    :param changed: those of the model without the layers, `whole` those of the whole model.
    :param weight: how many tokens each sum is over.
    """
    change, half = paired(changed - whole, weight)
    return Drop(
        first=first + 1,
        last=last + 1,
        value=(whole.sum() / weight.sum()).item() + change,
        change=change,
        low=None if half is None else change - half,
        high=None if half is None else change + half,
    )


def paired(difference: Tensor, weight: Tensor) -> tuple[float, float | None]:
    """Mean difference per token, and the half width of its 95% interval over sequences of different weight (ratio estimator)."""
    count, total = len(weight), weight.sum()
    mean = difference.sum() / total
    if count < 2:
        return mean.item(), None
    error = ((difference - mean * weight).square().sum() * count / (count - 1)).sqrt() / total
    return mean.item(), float(stats.t.ppf(0.975, count - 1)) * error.item()
