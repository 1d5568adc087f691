"""All diagnostics of one model."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from mixln.diagnostics.angular import angular_distance
from mixln.diagnostics.drop import performance_drop
from mixln.diagnostics.gradients import gradients
from mixln.diagnostics.jacobian import jacobian
from mixln.diagnostics.measures import Measure
from mixln.diagnostics.residual import residual_stream
from mixln.diagnostics.results import Angular, Diagnosis, Gradients, Omission
from mixln.diagnostics.settings import MeasureSettings
from mixln.diagnostics.stack import Batch, Stack, find_stack, fresh
from mixln.errors import SettingsError

log = logging.getLogger(__name__)

CONTEXT = 64
"""Tokens up to and with the one at which the Jacobian is taken."""
NEWS_SECONDS = 20.0
"""Time between two lines about how far it is."""
SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Layers of the blocks that are tried."""


def diagnose(
    stack: Stack,
    batches: Sequence[Batch],
    measure: Measure,
    settings: MeasureSettings,
    *,
    name: str,
) -> Diagnosis:
    """Measures what `settings` asks for.

    :param batches: batches of at most `settings.batch_size` sequences.
    :param measure: the model's performance; gradients are taken of it where it is a loss.
    :raises MixlnError: see the diagnostics one by one.
    """
    omitted: list[Omission] = []
    model_type = str(stack.model.config.model_type)
    memory = int(settings.memory_gb * 1e9)
    log.info(f"{name}: angular distance and residual stream")
    parts = list(fitting(stack, batches, memory))
    angular = angular_distance(stack, parts, convention="last" if settings.last_token else "all")
    stream = residual_stream(stack, parts)
    if stack.branches is None:
        omitted.append(Omission(kind="unknown-branches", model_type=model_type))
    drops = None
    if settings.drop:
        blocks = every_block(len(stack), settings.blocks) if settings.blocks else likely_blocks(angular)
        log.info(f"{name}: performance drop of {len(stack)} layers and {len(blocks)} block{'s' * (len(blocks) != 1)}")
        watched = _watched(batches, name)
        drops = performance_drop(stack, watched, measure, blocks=blocks, memory=memory)
    given = initial = None
    if settings.gradient_tokens and measure.name != "loss":
        omitted.append(Omission(kind="no-loss", model_type=model_type))
    elif settings.gradient_tokens and stack.branches is not None:
        some = first_rows(batches, settings.gradient_tokens)
        log.info(f"{name}: gradients, as loaded and re-initialised")
        given = gradients(stack, some, measure)
        initial = initial_gradients(stack, some, measure, seed=settings.seed, layers=settings.layer_list)
    jacobians = None
    if settings.jacobian_tokens:
        log.info(f"{name}: Jacobian of every layer")
        jacobians = jacobian(stack, _begun(spread_rows(batches, settings.jacobian_tokens)), seed=settings.seed)
    return Diagnosis(
        model=name,
        layers=len(stack),
        angular=angular,
        stream=stream,
        drops=drops,
        gradients=given,
        initial=initial,
        jacobian=jacobians,
        omitted=tuple(omitted),
    )


def _watched(batches: Sequence[Batch], name: str) -> Iterator[Batch]:
    """The batches, with a word on how long the rest will take when some time has gone by."""
    began = said = time.monotonic()
    for done, batch in enumerate(batches):
        now = time.monotonic()
        if done and now - said > NEWS_SECONDS:
            said = now
            left = (now - began) / done * (len(batches) - done) / 60
            log.info(f"{name}: {done} of {len(batches)} batches, {left:.1f} min left")
        yield batch


def _begun(batch: Batch) -> Batch:
    """The beginnings of sequences: the Jacobian's cost grows with the tokens that stand before its own."""
    return {name: value[:, :CONTEXT] if value.dim() == 2 else value for name, value in batch.items()}


def likely_blocks(angular: Angular) -> list[tuple[int, int]]:
    """Of sizes from two to half of the layers, the block at whose ends the stream points most alike, (first, last) from 1.

    These are the layers that Gromov et al. (arXiv:2403.17887) would remove.
    """
    depth = len(angular.distance)
    found = []
    for size in (size for size in SIZES if size <= depth // 2):
        first = min(range(depth - size + 1), key=lambda start: angular.distance[start][size - 1])
        found.append((first + 1, first + size))
    return found


def every_block(depth: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Every block of these sizes, (first, last) from 1.

    :raises SettingsError: if a size is the whole model or more.
    """
    if too_large := [size for size in sizes if size >= depth]:
        raise SettingsError(f"blocks must be smaller than the model's {depth} layers, got {too_large[0]}")
    return [(first, first + size - 1) for size in sizes for first in range(1, depth - size + 2)]


def initial_gradients(
    stack: Stack, batches: Sequence[Batch], measure: Measure, *, seed: int, layers: str | None = None
) -> Gradients:
    """The gradients of the same architecture with re-initialised weights from `seed`, on the same batches."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = fresh(stack.model, copy.deepcopy(stack.model.config))
        _draw_padding(model)
    return gradients(find_stack(model, layers), batches, measure)


def fitting(stack: Stack, batches: Iterable[Batch], memory: int) -> Iterator[Batch]:
    """The batches, cut so that all states and branches of one take at most `memory` bytes, or into single sequences."""
    for batch in batches:
        rows = len(next(iter(batch.values())))
        need = 5 * len(stack) * stack.state_bytes(batch)
        size = max(1, min(rows, rows * memory // need))
        for start in range(0, rows, size):
            yield {name: value[start : start + size] for name, value in batch.items()}


@torch.no_grad()
def _draw_padding(model: PreTrainedModel) -> None:
    """Draws the embedding of the padding token like the others, instead of zeros.

    Where that token also ends documents, a sequence may begin with it: the stream is then zero at its first position, and the
    gradient of a norm of zeros, 1/√ε a layer, grows beyond all bounds.
    """
    embedding = model.get_input_embeddings()
    if isinstance(embedding, nn.Embedding) and embedding.padding_idx is not None:
        embedding.weight[embedding.padding_idx].normal_(std=embedding.weight.std().item())


def first_rows(batches: Sequence[Batch], tokens: int) -> list[Batch]:
    """As many of the first sequences as hold `tokens` tokens, padding included; at least one. An image counts as one token."""
    found: list[Batch] = []
    for batch in batches:
        first = next(iter(batch.values()))
        length = first.shape[1] if first.dim() == 2 else 1
        take = min(len(first), math.ceil(tokens / length))
        found.append({name: value[:take] for name, value in batch.items()})
        tokens -= take * length
        if tokens <= 0:
            break
    return found


def spread_rows(batches: Sequence[Batch], count: int) -> Batch:
    """One batch of `count` sequences spread evenly over all batches, or of all sequences if there are fewer."""
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    size = len(next(iter(whole.values())))
    chosen = torch.linspace(0, size - 1, min(count, size)).round().long()
    return {name: value[chosen.to(value.device)] for name, value in whole.items()}
