"""Selects layers, or their branches, to remove together: greedily, by single drops, or as one block.

Shapes: N sequences of all batches.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from mixln.diagnostics.drop import MEMORY, Removal, effect, every_kept, nothing_predicted, results
from mixln.diagnostics.measures import Measure
from mixln.diagnostics.results import Method, RemovedPart, RemovedSet, Selection, Side, Units
from mixln.diagnostics.stack import Batch, OutputForm, Part, Stack, evaluating, recording
from mixln.errors import SettingsError
from mixln.nn.residual import PlacedLayer

log = logging.getLogger(__name__)

NOUNS: dict[Units, str] = {
    "layers": "layers",
    "attention": "attentions",
    "feed-forward": "feed-forwards",
    "sublayers": "sublayers",
}
SIDES: tuple[Side, ...] = ("attention", "feed-forward")
Enough = Callable[[Iterable[Part]], bool]
"""Predicate: whether enough parts are removed. If it holds for a set, it must hold for every superset."""
Chosen = tuple[Removal, tuple[float, ...]]
"""A set, and the harm after each removal; empty if only the whole set was measured."""


@torch.no_grad()
def best_sets(
    stack: Stack,
    batches: Sequence[Batch],
    measure: Measure,
    *,
    units: Units,
    enough: Enough,
    methods: Sequence[Method] = ("greedy", "one-shot", "contiguous"),
    memory: int = MEMORY,
) -> Selection:
    """The parts to remove together by each method, and the measure of the model without all of them.

    - greedy: removes one part after the other, each time the one without which the measure is best, given those that are gone
      already. Costs about half a forward pass for each part that is left, in every round; the states before a part are reused.
    - one-shot: the parts with the smallest drops of their own, as a ranking of layers takes them.
    - contiguous: of all blocks of consecutive parts that are just long enough, the best one.

    The parts need not be adjacent, except in a block.

    :param units: what is removed: whole layers (skipped), only attentions, only feed-forwards, or either (set to zero).
    :param enough: when to stop, for example :func:`count`.
    :param memory: see :func:`~mixln.diagnostics.drop.performance_drop`.
    :raises SettingsError: if the branches that `units` names are unknown, or all parts together are not enough.
    :raises DataError: if no token or image is predicted.
    """
    parts = parts_of(stack, units)
    if not enough(parts):
        raise SettingsError(f"the {len(parts)} {NOUNS[units]} of this model are not enough to remove; remove fewer")
    trials = _Trials(stack, batches, measure, memory)
    if not trials.weight.sum() > 0:
        raise nothing_predicted(measure)
    singles = [(part,) for part in parts]
    blocks = list(_blocks(parts, enough)) if "contiguous" in methods else []
    log.info(f"each of {len(parts)} {NOUNS[units]} alone" + (f", and {len(blocks)} blocks" if blocks else ""))
    whole, changed = trials.sums((), [*singles, *(block for block in blocks if len(block) > 1)])
    alone = trials.harms(whole, changed)

    choose: dict[Method, Callable[[], Chosen]] = {
        "greedy": lambda: _greedy(trials, parts, enough, whole, alone),
        "one-shot": lambda: (_ranked(parts, enough, alone), ()),
        "contiguous": lambda: (min(blocks, key=alone.__getitem__), ()),
    }
    return Selection(
        units=units,
        measure=measure.name,
        unit=measure.unit,
        better=measure.better,
        original=(whole.sum() / trials.weight.sum()).item(),
        tokens=int(trials.weight.sum().item()),
        sequences=len(trials.weight),
        candidates=len(parts),
        parameters=sum(weight.numel() for weight in stack.model.parameters()),
        sets=tuple(_measured(trials, whole, method, *choose[method]()) for method in methods),
    )


def count(number: int) -> Enough:
    """Enough are `number` parts."""
    return lambda parts: len(list(parts)) >= number


def check_remove(stack: Stack, units: Units, number: int) -> None:
    """:raises SettingsError: if the model has not more than `number` such parts, or its branches are unknown."""
    if number >= (most := len(parts_of(stack, units))):
        raise SettingsError(f"remove must be below the model's {most} {NOUNS[units]}, got {number}; remove fewer")


def parts_of(stack: Stack, units: Units) -> list[Part]:
    """The parts of a kind, first layer first.

    :raises SettingsError: if it is a branch and the branches of this model are unknown, or a layer that cannot be skipped.
    """
    layers = range(len(stack))
    if units == "layers":
        stack.check_skipping()
        return [Part(layer=layer) for layer in layers]
    if stack.branches is None:
        raise SettingsError(
            f"units {units} needs the branches of the layers, which cannot be read from the code of this "
            f"{stack.model.config.model_type!r} model; choose --units layers"
        )
    sides = (0, 1) if units == "sublayers" else (SIDES.index(units),)
    return [Part(layer=layer, side=side) for layer in layers for side in sides]


def saved(stack: Stack, parts: Iterable[Part]) -> list[nn.Parameter]:
    """The parameters that no remaining part of the model uses."""
    gone = {id(module): module for part in parts for module in _modules(stack, part)}

    def own(modules: Iterable[nn.Module]) -> dict[int, nn.Parameter]:
        return {id(weight): weight for module in modules for weight in module.parameters(recurse=False)}

    remaining = own(module for module in stack.model.modules() if id(module) not in gone)
    return [weight for key, weight in own(gone.values()).items() if key not in remaining]


def _modules(stack: Stack, part: Part) -> Iterator[nn.Module]:
    layer = stack.layers[part.layer]
    if part.side is not None:
        assert stack.branches is not None
        for name in stack.branches[part.layer][part.side].weights:
            yield from layer.get_submodule(name).modules()
        return
    # The embedding norm of a placed model moves to the layer that is then the first.
    kept = layer.stream_in if isinstance(layer, PlacedLayer) else None
    kept_too = set() if kept is None else set(kept.modules())
    yield from (module for module in layer.modules() if module not in kept_too)


class _Trials:
    """Models without some parts, measured on the same batches as the whole model.

    :param forms: of the outputs of the layers, see :class:`~mixln.diagnostics.stack.Recording`.
    """

    def __init__(self, stack: Stack, batches: Sequence[Batch], measure: Measure, memory: int) -> None:
        self.stack, self.batches, self.measure, self.memory = stack, batches, measure, memory
        self.weight = torch.cat([measure.weights(batch) for batch in batches])
        self.originals: list[Tensor] = []
        self.forms: list[OutputForm] = []

    def sums(self, removed: Removal, further: Sequence[Removal] = ()) -> tuple[Tensor, dict[Removal, Tensor]]:
        """The measure's sums over each sequence (N,) without `removed`, and without each of `further` as well.

        The first call must be that of the whole model.
        """
        own: list[Tensor] = []
        changed: dict[Removal, list[Tensor]] = {more: [] for more in further}
        stack, measure = self.stack, self.measure
        with evaluating(stack.model), stack.removing(removed, self.forms):
            for index, batch in enumerate(self.batches):
                with recording(stack, batch, every=every_kept(stack, batch, self.memory)) as record:
                    result = measure.run(stack, batch)
                if not removed:
                    self.originals.append(result)
                    self.forms = record.outputs
                original = self.originals[index]
                own.append(measure.rows(result, original, batch))
                for more, result in results(record, measure, further):
                    changed[more].append(measure.rows(result, original, batch))
        return torch.cat(own), {more: torch.cat(rows) for more, rows in changed.items()}

    def harms(self, whole: Tensor, changed: dict[Removal, Tensor]) -> dict[Removal, float]:
        """The change for the worse without each removal; infinite if the measure is not finite."""
        sign = 1 if self.measure.better == "lower" else -1
        means = {more: (sign * (rows - whole).sum() / self.weight.sum()).item() for more, rows in changed.items()}
        return {more: harm if math.isfinite(harm) else math.inf for more, harm in means.items()}


def _measured(trials: _Trials, whole: Tensor, method: Method, removed: Removal, path: tuple[float, ...]) -> RemovedSet:
    """The model without all of a set, against the whole one, whose sums over each sequence are `whole` (N,)."""
    return RemovedSet(
        method=method,
        parts=tuple(map(stored, removed)),
        **effect(trials.sums(removed)[0], whole, trials.weight),
        parameters=sum(weight.numel() for weight in saved(trials.stack, removed)),
        path=path,
    )


def _greedy(
    trials: _Trials, parts: Sequence[Part], enough: Enough, whole: Tensor, alone: dict[Removal, float]
) -> Chosen:
    """The parts in the order of their removal, and the harm after each.

    :param alone: the harm of each part by itself.
    """
    gone: Removal = ()
    path: tuple[float, ...] = ()
    harms = alone
    while True:
        best = min((more for more in harms if len(more) == 1), key=harms.__getitem__)
        gone, path = (*gone, *best), (*path, harms[best])
        name = f"layer {best[0].layer + 1}" + ("" if best[0].side is None else f", {SIDES[best[0].side]}")
        log.info(f"greedy: {len(gone)} removed, the last one {name}; {trials.measure.name} worse by {harms[best]:.4g}")
        if enough(gone):
            return gone, path
        _, changed = trials.sums(gone, [(part,) for part in parts if part not in gone])
        harms = trials.harms(whole, changed)


def _ranked(parts: Sequence[Part], enough: Enough, alone: dict[Removal, float]) -> Removal:
    """The shortest prefix of the parts, ranked by their single drops, that is enough."""
    ranked = sorted(parts, key=lambda part: alone[(part,)])
    return next(tuple(ranked[:size]) for size in range(1, len(ranked) + 1) if enough(ranked[:size]))


def _blocks(parts: Sequence[Part], enough: Enough) -> Iterator[Removal]:
    """From each part, the shortest block that is enough."""
    end = 1
    for start in range(len(parts)):
        while not enough(parts[start:end]):
            if end == len(parts):
                return
            end += 1
        yield tuple(parts[start:end])


def stored(part: Part) -> RemovedPart:
    """A part as a result holds it, counted from 1."""
    return RemovedPart(layer=part.layer + 1, side=None if part.side is None else SIDES[part.side])
