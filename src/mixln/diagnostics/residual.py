"""Statistics of the residual stream by depth. Shapes: B batch, T tokens, D hidden size."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mixln.diagnostics.results import ResidualStream
from mixln.diagnostics.stack import Batch, Stack, evaluating, first_of, hooks, real_tokens, recording, split_call
from mixln.nn.residual import PlacedLayer, Residual, placed_layers
from mixln.nn.streams import Fold
from mixln.runs.profile import LayerProfile, Profile


@torch.no_grad()
def residual_stream(stack: Stack, batches: Iterable[Batch]) -> ResidualStream:
    """Variance over features and L2 norm of the residual stream at every depth, and the share of each branch in its sum.

    Means over the tokens that are not padding, computed in float32. The variance is σ², whose growth with depth the Mix-LN paper
    names as the cause of ineffective deep layers in Pre-LN (arXiv:2412.13795, section 2.1).

    Of several streams, variance and norm are those of what the next layer, or the final norm, would read; there is no one sum, so
    `share` is empty.

    :param batches: inputs of the model; `attention_mask` (B, T) marks padding with 0.
    """
    depth, tokens = len(stack), 0
    packed = _packed(stack)
    shares = stack.branches is not None and not packed
    entry: dict[str, float] = {"variance": 0.0, "norm": 0.0}
    sums = {name: torch.zeros(depth, 2, dtype=torch.float64) for name in ("variance", "norm", "share")}

    with evaluating(stack.model):
        for batch in batches:
            with recording(stack, batch) as record, branch_terms(stack) as seen:
                stack.run(batch)
            keep_BT = real_tokens(batch, record.states[depth])
            tokens += int(keep_BT.sum())
            for name, value in _moments(record.read(0), keep_BT).items():
                entry[name] += value
            for index in range(depth):
                for name, value in _moments(record.read(index + 1), keep_BT).items():
                    sums[name][index, 1] += value
                if stack.branches is None:
                    continue
                before, after = seen[index, 0, "stream"], seen[index, 1, "stream"]
                if after is before:  # parallel branches: both read the layer's input
                    after = before + seen[index, 0, "branch"]
                for name, value in _moments(stack.read(after) if packed else after, keep_BT).items():
                    sums[name][index, 0] += value
                for side in range(2 if shares else 0):
                    x_BTD = seen[index, side, "stream"]
                    skip = _norm(_skip(stack.layers[index], side, x_BTD, record.entered(index)), keep_BT)
                    branch = _norm(seen[index, side, "branch"], keep_BT)
                    share = branch / (skip + branch).clamp_min(torch.finfo(torch.float32).tiny)  # 0/0 is 0
                    sums["share"][index, side] += share.sum().item()

    def profile(name: str) -> Profile:
        attention, feed_forward = (sums[name] / tokens).T.tolist()
        return Profile(attention=tuple(attention) if stack.branches else (), feed_forward=tuple(feed_forward))

    return ResidualStream(
        entry_variance=entry["variance"] / tokens,
        entry_norm=entry["norm"] / tokens,
        variance=profile("variance"),
        norm=profile("norm"),
        share=profile("share") if shares else Profile(attention=(), feed_forward=()),
        gains=norm_gains(stack),
    )


def _packed(stack: Stack) -> bool:
    """Whether the sublayers pass several streams to each other; in DLCL and DenseFormer, only the layers do."""
    return any(isinstance(layer, PlacedLayer) and layer.sublayer.packed for layer in stack.layers)


@contextmanager
def branch_terms(stack: Stack) -> Iterator[dict[tuple[int, int, str], Tensor]]:
    """Records both terms of every residual sum of the run inside the `with` block: (layer, side, `stream` or `branch`) → (B, T, D).

    Of several streams, `stream` is the packed one (B, T, S·D).
    Layers are counted from 0; side 0 is attention, 1 feed-forward.
    """
    seen: dict[tuple[int, int, str], Tensor] = {}

    def stream(key: tuple[int, int]) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen[*key, "stream"], *_ = split_call(args, kwargs)

        return hook

    def branch(key: tuple[int, int]) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            seen[*key, "branch"] = first_of(output)

        return hook

    with hooks() as add:
        for index, (layer, branches) in enumerate(zip(stack.layers, stack.branches or (), strict=False)):
            for side, names in enumerate(branches):
                add(
                    layer.get_submodule(names.stream).register_forward_pre_hook(stream((index, side)), with_kwargs=True)
                )
                add(layer.get_submodule(names.output).register_forward_hook(branch((index, side))))
        yield seen


def _moments(x_BTD: Tensor, keep_BT: Tensor) -> dict[str, float]:
    """Sums over the kept tokens of the variance over features and of the L2 norm."""
    variance_BT = x_BTD.float().var(dim=-1, correction=0).view(keep_BT.shape)
    return {
        "variance": variance_BT[keep_BT].sum().item(),
        "norm": _norm(x_BTD, keep_BT).sum().item(),
    }


def _norm(x_BTD: Tensor, keep_BT: Tensor) -> Tensor:
    return x_BTD.float().norm(dim=-1).view(keep_BT.shape)[keep_BT]


def _skip(layer: nn.Module, side: int, stream_BTD: Tensor, entered: Tensor) -> Tensor:
    """The term that the branch is added to: the stream, or the layer's input in SpanNorm, scaled or gated as the placement defines,
    plus the layer's input in B2T.

    :param entered: the state that enters the layer's sublayers.
    """
    if not isinstance(layer, PlacedLayer):
        return stream_BTD
    base = layer.bottom(entered) if side == 1 and layer.record.span else stream_BTD
    skip = layer.sublayers[side][1].skip(base)
    return skip + layer.bottom(entered) if side == 1 and layer.record.bottom_to_top else skip


@torch.no_grad()
def norm_gains(stack: Stack) -> dict[str, tuple[float | None, ...]]:
    """The mean |gain| of every norm: name within the layer → one value per layer, `None` for layers without this norm.

    The gain is measured as (norm(v) − norm(−v)) / 2v, where v alternates between 1 and −1 and so has mean 0 and mean square 1.
    This is correct for weights stored as gain − 1 (Gemma), and biases cancel.
    """
    gains: dict[str, list[float | None]] = {}
    for index, layer in enumerate(stack.layers):
        for name, module in layer.named_modules():
            weight = getattr(module, "weight", None)
            if "norm" not in type(module).__name__.lower() or not isinstance(weight, Tensor) or weight.dim() != 1:
                continue
            if len(_required(module)) != 1:
                continue  # for example a gated norm, which takes a second input
            v = torch.ones_like(weight)
            v[1::2] = -1
            gain = (module(v) - module(-v)).float().abs().mean().item() / 2
            gains.setdefault(name, [None] * len(stack))[index] = gain
    return {name: tuple(values) for name, values in gains.items()}


def _required(module: nn.Module) -> list[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]


@torch.no_grad()
def residual_variance(model: nn.Module, batch: Mapping[str, Any], *, step: int) -> LayerProfile:
    """Variance σ² of the residual stream over features after each sublayer, mean over tokens, in float32.

    Cheaper than :func:`residual_stream`, so that a training run can record it at intervals. Of several streams it is that of what
    the final norm would read there; in DLCL and DenseFormer, whose layers alone add outputs up, of the output of each sublayer.

    :param model: a placed model; run in evaluation mode, its mode is restored afterwards.
    :param batch: inputs of the model; `input_ids` is (B, T).
    :param step: optimizer step to record with the result.
    """
    seen: dict[Residual, float] = {}
    fold = next((module for module in model.modules() if isinstance(module, Fold)), None)

    def record(module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, Residual)
        stream = output if fold is None else fold(output)
        seen[module] = stream.float().var(dim=-1, correction=0).mean().item()

    layers = list(placed_layers(model))
    with evaluating(model), hooks() as add:
        for layer in layers:
            for _, residual in layer.sublayers:
                add(residual.register_forward_hook(record))
        model(**batch)
    return LayerProfile(
        step=step,
        attention=tuple(seen[layer.attention_residual] for layer in layers),
        feed_forward=tuple(seen[layer.feed_forward_residual] for layer in layers),
    )
