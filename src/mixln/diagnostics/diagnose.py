"""Runs all diagnostics of one model."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mixln.diagnostics.angular import angular_distance
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.experts import expert_use
from mixln.diagnostics.gradients import gradients
from mixln.diagnostics.jacobian import check_square, jacobian
from mixln.diagnostics.measures import Measure
from mixln.diagnostics.residual import residual_stream
from mixln.diagnostics.results import Angular, Diagnosis, Gradients, Omission
from mixln.diagnostics.selection import best_sets, check_remove, count
from mixln.diagnostics.settings import MeasureSettings
from mixln.diagnostics.stack import Batch, Stack, find_stack, fresh
from mixln.errors import SettingsError
from mixln.nn.ramp import set_step, step_of

log = logging.getLogger(__name__)

CONTEXT = 64
"""Tokens of the sequence for the Jacobian, including the one at which it is taken."""
NEWS_SECONDS = 20.0
"""Seconds between two progress messages."""
SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Block sizes, in layers, that are measured by default."""


def diagnose(
    stack: Stack,
    batches: Sequence[Batch],
    measure: Measure,
    settings: MeasureSettings,
    *,
    name: str,
) -> Diagnosis:
    """Runs the diagnostics that `settings` selects.

    :param batches: batches of at most `settings.batch_size` sequences.
    :param measure: measure of performance; gradients are computed only if it is a loss.
    :raises MixlnError: see the individual diagnostics.
    """
    _check(stack, settings)
    omitted: list[Omission] = []
    model_type = str(stack.model.config.model_type)
    memory = int(settings.memory_gb * 1e9)
    log.info(f"{name}: angular distance and residual stream")
    parts = list(fitting(stack, batches, memory))
    angular = angular_distance(stack, parts, convention="last" if settings.last_token else "all")
    stream = residual_stream(stack, parts)
    if stack.branches is None:
        omitted.append(Omission(kind="unknown-branches", model_type=model_type))
    drops = selection = loaded = initial = jacobians = None
    if settings.drop:
        blocks: Sequence[tuple[int, int]] = ()
        if settings.blocks:
            blocks = every_block(len(stack), settings.blocks)
        elif stack.grows:
            omitted.append(Omission(kind="no-skipping", model_type=model_type))
        else:
            blocks = likely_blocks(angular)
        log.info(f"{name}: performance drop of {len(stack)} layers and {len(blocks)} block{'s' * (len(blocks) != 1)}")
        options: dict[str, Any] = {"blocks": blocks, "sublayers": settings.sublayers, "memory": memory}
        drops = performance_drop(stack, _watched(batches, name), measure, **options)
    if settings.remove is not None:
        log.info(f"{name}: {settings.remove} {settings.units} to remove together")
        enough = count(settings.remove)
        selection = best_sets(stack, batches, measure, units=settings.units, enough=enough, memory=memory)
    if settings.gradient_tokens and measure.name != "loss":
        omitted.append(Omission(kind="no-loss", model_type=model_type))
    elif settings.gradient_tokens and stack.branches is not None:
        rows = first_rows(batches, settings.gradient_tokens)
        log.info(f"{name}: gradients, as loaded and re-initialised")
        loaded = gradients(stack, rows, measure)
        initial = initial_gradients(stack, rows, measure, seed=settings.seed, layers=settings.layer_list)
    if settings.jacobian_tokens:
        log.info(f"{name}: Jacobian of every layer")
        jacobians = jacobian(stack, _begun(spread_rows(batches, settings.jacobian_tokens)), seed=settings.seed)
    return Diagnosis(
        model=name,
        layers=len(stack),
        angular=angular,
        stream=stream,
        drops=drops,
        gradients=loaded,
        initial=initial,
        jacobian=jacobians,
        omitted=tuple(omitted),
        selection=selection,
        experts=expert_use(stack, parts),
    )


def _check(stack: Stack, settings: MeasureSettings) -> None:
    """:raises SettingsError: if something is asked for that is not defined for this model."""
    if settings.remove is not None:
        check_remove(stack, settings.units, settings.remove)
    if settings.tasks or (settings.drop and settings.blocks):
        stack.check_skipping()
    if settings.jacobian_tokens:
        check_square(stack)


def _watched(batches: Sequence[Batch], name: str) -> Iterator[Batch]:
    """Yields the batches and reports the remaining time every `NEWS_SECONDS`."""
    began = said = time.monotonic()
    for done, batch in enumerate(batches):
        now = time.monotonic()
        if done and now - said > NEWS_SECONDS:
            said = now
            left = (now - began) / done * (len(batches) - done) / 60
            log.info(f"{name}: {done} of {len(batches)} batches, {left:.1f} min left")
        yield batch


def _begun(batch: Batch) -> Batch:
    """The first `CONTEXT` tokens of each sequence. The cost of a Jacobian grows with the number of tokens before its own."""
    return {name: value[:, :CONTEXT] if value.dim() == 2 else value for name, value in batch.items()}


def likely_blocks(angular: Angular) -> list[tuple[int, int]]:
    """For each block size up to half of the layers, the block with the smallest angular distance between its ends.

    This is the rule by which Gromov et al. (arXiv:2403.17887) choose the layers to remove.

    :returns: (first, last) of each block, counted from 1.
    """
    depth = len(angular.distance)
    blocks = []
    for size in (size for size in SIZES if size <= depth // 2):
        first = min(range(depth - size + 1), key=lambda start: angular.distance[start][size - 1])
        blocks.append((first + 1, first + size))
    return blocks


def every_block(depth: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """All blocks of these sizes, as (first, last) counted from 1.

    :raises SettingsError: if a size is not smaller than the model.
    """
    if too_large := [size for size in sizes if size >= depth]:
        raise SettingsError(
            f"blocks must be smaller than the model's {depth} layers, got {too_large[0]}; choose smaller sizes"
        )
    return [(first, first + size - 1) for size in sizes for first in range(1, depth - size + 2)]


def initial_gradients(
    stack: Stack, batches: Sequence[Batch], measure: Measure, *, seed: int, layers: str | None = None
) -> Gradients:
    """Gradients of the same architecture with weights re-initialised from `seed`, on the same batches."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = fresh(stack.model, copy.deepcopy(stack.model.config))
        _draw_padding(model)
        set_step(model, step_of(stack.model))  # at step 0, growing branches would have no gradient
    return gradients(find_stack(model, layers), batches, measure)


def fitting(stack: Stack, batches: Iterable[Batch], memory: int) -> Iterator[Batch]:
    """Splits the batches so that all states and branches of one batch take at most `memory` bytes, or down to single sequences."""
    for batch in batches:
        rows = len(next(iter(batch.values())))
        # Per layer: its input, and a stream and a branch for each of its two sublayers.
        need = 5 * len(stack) * stack.state_bytes(batch)
        size = max(1, min(rows, rows * memory // need))
        for start in range(0, rows, size):
            yield {name: value[start : start + size] for name, value in batch.items()}


@torch.no_grad()
def _draw_padding(model: PreTrainedModel) -> None:
    """Draws the embedding of the padding token like the others, instead of setting it to zero.

    If the padding token also separates documents, a sequence may begin with it. The stream would then be zero at its first
    position, where the gradient of a norm is 1/√ε: over several layers it overflows.
    """
    embedding = model.get_input_embeddings()
    if isinstance(embedding, nn.Embedding) and embedding.padding_idx is not None:
        embedding.weight[embedding.padding_idx].normal_(std=embedding.weight.std().item())


def first_rows(batches: Sequence[Batch], tokens: int) -> list[Batch]:
    """The first sequences, at least one, that together have `tokens` tokens, padding included. An image counts as one token."""
    chosen: list[Batch] = []
    for batch in batches:
        first = next(iter(batch.values()))
        length = first.shape[1] if first.dim() == 2 else 1
        take = min(len(first), math.ceil(tokens / length))
        chosen.append({name: value[:take] for name, value in batch.items()})
        tokens -= take * length
        if tokens <= 0:
            break
    return chosen


def spread_rows(batches: Sequence[Batch], count: int) -> Batch:
    """One batch of `count` sequences, evenly spaced over all batches; all sequences if there are fewer."""
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    size = len(next(iter(whole.values())))
    chosen = torch.linspace(0, size - 1, min(count, size)).round().long()
    return {name: value[chosen.to(value.device)] for name, value in whole.items()}
