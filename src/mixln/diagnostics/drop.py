"""Performance drop: the change of a model's performance without some of its layers.

Shapes: B batch, N sequences of all batches, T tokens, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from mixln.diagnostics.measures import Measure
from mixln.diagnostics.results import Drop, Drops
from mixln.diagnostics.stack import Batch, Part, Recording, Stack, evaluating, recording
from mixln.errors import DataError, SettingsError

MEMORY = 2 * 1024**3
"""Default limit, in bytes, for the layer inputs that are kept."""


Removal = tuple[Part, ...]
"""Parts that are removed together, in the order of their layers."""


@torch.no_grad()
def performance_drop(
    stack: Stack,
    batches: Iterable[Batch],
    measure: Measure,
    *,
    blocks: Sequence[tuple[int, int]] = (),
    zeroed: bool = True,
    sublayers: bool = False,
    memory: int = MEMORY,
) -> Drops:
    """ΔP = P without the layer − P of the whole model, for every layer (arXiv:2412.13795, equation 9) and for blocks of layers.

    The result is exact. It costs about half a forward pass per layer and definition, because the model without layer l runs only
    from layer l on, starting from the whole model's input of l. No weights are copied and no files are written.

    :param measure: the measure P; see :mod:`mixln.diagnostics.measures`.
    :param blocks: additional blocks of consecutive layers (first, last), counted from 1, for example (21, 24).
    :param zeroed: also measure each layer with its branches zeroed and its norms on the stream kept, if the branches are known.
    :param sublayers: also measure each layer with only its attention, and with only its feed-forward, zeroed, if they are known.
    :param memory: limit, in bytes, for the layer inputs that are kept; those that do not fit are recomputed, with the same result.
    Where no layer can be skipped, the drops with branches at zero are the only ones.

    :raises SettingsError: if a block does not lie within the model, or a layer can neither be skipped nor have its branches zeroed.
    :raises CheckpointError: if a state is not finite; names the first such layer.
    :raises DataError: if no token or image is predicted.
    """
    depth = len(stack)
    for first, last in blocks:
        if not 1 <= first <= last <= depth:
            raise SettingsError(
                f"blocks must lie within the layers 1 to {depth}, got {first}-{last}; give the first and the last layer"
            )
    known, every = stack.branches is not None, range(depth)
    if blocks or not (zeroed and known):
        stack.check_skipping()
    singles = [] if stack.grows else [(Part(layer=index),) for index in every]
    others = [tuple(Part(layer=index) for index in range(first - 1, last)) for first, last in blocks]
    zeros = [both(index) for index in every] if zeroed and known else []
    sides = [[(Part(layer=index, side=side),) for index in every] if sublayers and known else [] for side in (0, 1)]
    whole, weight, changed = _sums(stack, batches, measure, [*singles, *others, *sides[0], *sides[1]], zeros, memory)
    if not weight.sum() > 0:
        raise nothing_predicted(measure)

    def drop(removed: Removal) -> Drop:
        first, last = removed[0].layer, removed[-1].layer
        skipped = (Part(layer=first),)
        return removal(first, last, changed[removed if removed in changed else skipped], whole, weight)

    return Drops(
        measure=measure.name,
        unit=measure.unit,
        better=measure.better,
        original=(whole.sum() / weight.sum()).item(),
        skipped=tuple(map(drop, singles)),
        zeroed=tuple(map(drop, zeros)),
        attention=tuple(map(drop, sides[0])),
        feed_forward=tuple(map(drop, sides[1])),
        blocks=tuple(map(drop, others)),
        tokens=int(weight.sum().item()),
        sequences=len(weight),
    )


def both(layer: int) -> Removal:
    """Both branches of a layer, which is counted from 0."""
    return Part(layer=layer, side=0), Part(layer=layer, side=1)


def nothing_predicted(measure: Measure) -> DataError:
    """The error of data without a token or image to measure."""
    return DataError(f"the {measure.name} needs at least one predicted token or image, got none; give more text")


def _sums(
    stack: Stack,
    batches: Iterable[Batch],
    measure: Measure,
    removals: Sequence[Removal],
    zeroed: Sequence[Removal],
    memory: int,
) -> tuple[Tensor, Tensor, dict[Removal, Tensor]]:
    """The measure's sums over each sequence (N,): of the whole model, their weights, and of each removal.

    :param zeroed: both branches of each layer; omitted where that is equal to the skipped layer.
    """
    whole: list[Tensor] = []
    weights: list[Tensor] = []
    changed: dict[Removal, list[Tensor]] = {}
    with evaluating(stack.model):
        for batch in batches:
            with recording(stack, batch, every=every_kept(stack, batch, memory)) as record:
                original = measure.run(stack, batch)
            if not changed:
                identities = _identities(record) if zeroed and not stack.grows else set()
                distinct = [removed for removed in zeroed if removed[0].layer not in identities]
                changed = {removed: [] for removed in (*removals, *distinct)}
            whole.append(measure.rows(original, original, batch))
            weights.append(measure.weights(batch))
            for removed, result in results(record, measure, list(changed)):
                changed[removed].append(measure.rows(result, original, batch))
    if not whole:
        return torch.zeros(0), torch.zeros(0), {}
    return torch.cat(whole), torch.cat(weights), {removed: torch.cat(rows) for removed, rows in changed.items()}


def results(record: Recording, measure: Measure, removals: Sequence[Removal]) -> Iterator[tuple[Removal, Tensor]]:
    """Runs the measure without each of the removals, in the order of their first layers."""
    for index, x_BTD in enumerate(record.inputs()):
        for removed in removals:
            if removed[0].layer == index:
                with record.starting(removed[-1].layer + 1, _output(record, removed, x_BTD)):
                    result = measure.run(record.stack, record.batch)
                yield removed, result


def _output(record: Recording, removed: Removal, x_BTD: Tensor) -> Tensor:
    """The stream after the last layer of the removal, if `x_BTD` is the input of its first."""
    with record.stack.removing(removed, record.outputs):
        for index in range(removed[0].layer, removed[-1].layer + 1):
            x_BTD = record.advance(index, x_BTD)
    return x_BTD


def _identities(record: Recording) -> set[int]:
    """The layers, counted from 0, that with zeroed branches are exactly the identity, as all Pre-LN layers are.

    For these both definitions of the drop coincide, and one run serves both.
    """
    return {
        index
        for index, x_BTD in enumerate(record.inputs())
        if torch.equal(_output(record, (Part(layer=index),), x_BTD), _output(record, both(index), x_BTD))
    }


def every_kept(stack: Stack, batch: Batch, memory: int) -> int:
    """The n for which the inputs of every n-th layer, for this batch, take at most `memory` bytes."""
    return max(1, math.ceil(len(stack) * stack.state_bytes(batch) / max(memory, 1)))


def removal(first: int, last: int, changed: Tensor, whole: Tensor, weight: Tensor) -> Drop:
    """The drop of the layers `first`..`last`, counted from 0.

    :param changed: the measure's sum over each sequence (N,) for the model without the layers; `whole`: for the whole model.
    :param weight: number of tokens of each sequence (N,).
    """
    return Drop(first=first + 1, last=last + 1, **effect(changed, whole, weight))


def effect(changed: Tensor, whole: Tensor, weight: Tensor) -> dict[str, Any]:
    """`value`, `change` and the 95% interval `low` to `high` of a removal, per token; parameters as of :func:`removal`."""
    change, half = paired(changed - whole, weight)
    return {
        "value": (whole.sum() / weight.sum()).item() + change,
        "change": change,
        "low": None if half is None else change - half,
        "high": None if half is None else change + half,
    }


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
