"""Performance drop: the change of a model's performance without some of its layers.

Shapes: B batch, N sequences of all batches, T tokens, D hidden size.
"""

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
"""Default limit, in bytes, for the layer inputs that are kept."""


@dataclass(frozen=True, kw_only=True)
class RemovedLayers:
    """The model without the layers `first`..`last`, counted from 0.

    :param zeroed: the branches are set to zero and the norms on the stream stay, instead of the whole layer being skipped.
    """

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
    """ΔP = P without the layer − P of the whole model, for every layer (arXiv:2412.13795, equation 9) and for blocks of layers.

    The result is exact. It costs about half a forward pass per layer and definition, because the model without layer l runs only
    from layer l on, starting from the whole model's input of l. No weights are copied and no files are written.

    :param measure: the measure P; see :mod:`mixln.diagnostics.measures`.
    :param blocks: additional blocks of consecutive layers (first, last), counted from 1, for example (21, 24).
    :param zeroed: also measure each layer with its branches zeroed and its norms on the stream kept, if the branches are known.
    :param memory: limit, in bytes, for the layer inputs that are kept; those that do not fit are recomputed, with the same result.
    :raises SettingsError: if a block does not lie within the model.
    :raises CheckpointError: if a state is not finite; names the first such layer.
    :raises DataError: if no token or image is predicted.
    """
    depth = len(stack)
    for first, last in blocks:
        if not 1 <= first <= last <= depth:
            raise SettingsError(
                f"blocks must lie within the layers 1 to {depth}, got {first}-{last}; give the first and the last layer"
            )
    singles = [RemovedLayers(first=index, last=index) for index in range(depth)]
    others = [RemovedLayers(first=first - 1, last=last - 1) for first, last in blocks]
    zeros = [RemovedLayers(first=i, last=i, zeroed=True) for i in range(depth)] if zeroed and stack.branches else []
    whole, weight, changed = _sums(stack, batches, measure, [*singles, *others], zeros, memory)
    if not weight.sum() > 0:
        raise DataError(f"the {measure.name} needs at least one predicted token or image, got none; give more text")

    def drop(variant: RemovedLayers) -> Drop:
        skipped = RemovedLayers(first=variant.first, last=variant.last)
        return removal(variant.first, variant.last, changed[variant if variant in changed else skipped], whole, weight)

    return Drops(
        measure=measure.name,
        unit=measure.unit,
        better=measure.better,
        original=(whole.sum() / weight.sum()).item(),
        skipped=tuple(map(drop, singles)),
        zeroed=tuple(map(drop, zeros)),
        blocks=tuple(map(drop, others)),
        tokens=int(weight.sum().item()),
        sequences=len(weight),
    )


def _sums(
    stack: Stack,
    batches: Iterable[Batch],
    measure: Measure,
    skipped: Sequence[RemovedLayers],
    zeroed: Sequence[RemovedLayers],
    memory: int,
) -> tuple[Tensor, Tensor, dict[RemovedLayers, Tensor]]:
    """The measure's sums over each sequence (N,): of the whole model, their weights, and of each variant.

    A zeroed variant that is equal to the skipped one is omitted.
    """
    whole: list[Tensor] = []
    weights: list[Tensor] = []
    changed: dict[RemovedLayers, list[Tensor]] = {}
    with evaluating(stack.model):
        for batch in batches:
            with recording(stack, batch, every=_every(stack, batch, memory)) as record:
                original = measure.run(stack, batch)
            if not changed:
                identities = _identities(record) if zeroed else set()
                distinct = [variant for variant in zeroed if variant.first not in identities]
                changed = {variant: [] for variant in (*skipped, *distinct)}
            whole.append(measure.rows(original, original, batch))
            weights.append(measure.weights(batch))
            for variant, result in _results(record, measure, list(changed)):
                changed[variant].append(measure.rows(result, original, batch))
    if not whole:
        return torch.zeros(0), torch.zeros(0), {}
    return torch.cat(whole), torch.cat(weights), {variant: torch.cat(rows) for variant, rows in changed.items()}


def _results(
    record: Recording, measure: Measure, variants: Sequence[RemovedLayers]
) -> Iterator[tuple[RemovedLayers, Tensor]]:
    """Runs every variant, in the order of their first layers."""
    for index, x_BTD in enumerate(record.inputs()):
        for variant in variants:
            if variant.first == index:
                with record.starting(variant.last + 1, _output(record, variant, x_BTD)):
                    result = measure.run(record.stack, record.batch)
                yield variant, result


def _output(record: Recording, variant: RemovedLayers, x_BTD: Tensor) -> Tensor:
    """The stream after the variant's last layer, if `x_BTD` is the input of its first."""
    if not variant.zeroed:
        return record.stack.entry(x_BTD) if variant.first == 0 else x_BTD
    with record.stack.zeroing(variant.first):
        return record.advance(variant.first, x_BTD)


def _identities(record: Recording) -> set[int]:
    """The layers, counted from 0, that with zeroed branches are exactly the identity, as all Pre-LN layers are.

    For these both definitions of the drop coincide, and one run serves both.
    """
    identities = set()
    for index, x_BTD in enumerate(record.inputs()):
        skipped = _output(record, RemovedLayers(first=index, last=index), x_BTD)
        if torch.equal(skipped, _output(record, RemovedLayers(first=index, last=index, zeroed=True), x_BTD)):
            identities.add(index)
    return identities


def _every(stack: Stack, batch: Batch, memory: int) -> int:
    """The n for which the inputs of every n-th layer, for this batch, take at most `memory` bytes."""
    return max(1, math.ceil(len(stack) * stack.state_bytes(batch) / max(memory, 1)))


def removal(first: int, last: int, changed: Tensor, whole: Tensor, weight: Tensor) -> Drop:
    """The drop of the layers `first`..`last`, counted from 0.

    :param changed: the measure's sum over each sequence (N,) for the model without the layers; `whole`: for the whole model.
    :param weight: number of tokens of each sequence (N,).
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
    """Mean difference per token and the half-width of its 95% interval; `None` for fewer than two sequences.

    With differences dᵢ and weights wᵢ of n sequences, D = Σdᵢ / Σwᵢ is a ratio estimator. Its standard error is
    √(n/(n−1) Σ(dᵢ − D wᵢ)²) / Σwᵢ, and its interval takes Student's t with n − 1 degrees of freedom.
    """
    count, total = len(weight), weight.sum()
    mean = difference.sum() / total
    if count < 2:
        return mean.item(), None
    error = ((difference - mean * weight).square().sum() * count / (count - 1)).sqrt() / total
    return mean.item(), float(stats.t.ppf(0.975, count - 1)) * error.item()
