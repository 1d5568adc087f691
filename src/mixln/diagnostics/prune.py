"""Removing layers for good: a smaller checkpoint whose other layers keep their roles."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection
from typing import Any

import torch
from transformers import PreTrainedModel

from mixln.diagnostics.stack import Stack, evaluating, find_stack, fresh
from mixln.errors import SettingsError
from mixln.nn.residual import PlacedLayer
from mixln.placement import Placement


def prune(stack: Stack, layers: Collection[int]) -> PreTrainedModel:
    """The same model without some layers; the others keep their weights, their placement records and what their config says of them.

    :param layers: layers to remove, counted from 1.
    :returns: a new model that shares no weight with the given one.
    :raises SettingsError: if a layer does not exist, none would be left, or the family gives a layer its role by its number:
        the pruned model is compared with the whole one that skips these layers.
    """
    depth = len(stack)
    if wrong := sorted(layer for layer in layers if not 1 <= layer <= depth):
        raise SettingsError(f"layers must lie within 1 to {depth}, got {wrong[0]}")
    kept = [index for index in range(depth) if index + 1 not in layers]
    if not kept:
        raise SettingsError(f"layers must leave at least one of the model's {depth}, got all of them")
    if len(kept) == depth:
        raise SettingsError("layers must name at least one layer to remove, got none")
    model = stack.model
    where = next(name for name, module in model.named_modules() if module is stack.layers)
    smaller: Any = fresh(model, pruned_config(model.config, kept)).eval()
    numbered = {f"{where}.{old}": f"{where}.{new}" for new, old in enumerate(kept)}
    depth_of_name = where.count(".") + 2
    weights = {}
    for name, weight in model.state_dict().items():
        layer = ".".join(name.split(".")[:depth_of_name])
        if layer in numbered:
            weights[numbered[layer] + name.removeprefix(layer)] = weight
        elif not name.startswith(f"{where}."):
            weights[name] = weight
    first = stack.layers[0]
    if isinstance(first, PlacedLayer) and first.stream_in is not None:  # the embedding norm goes to the new first layer
        weights |= {f"{where}.0.stream_in.{name}": weight for name, weight in first.stream_in.state_dict().items()}
    try:
        smaller.load_state_dict(weights)
    except RuntimeError as error:
        raise _differs(stack) from error
    if model.can_generate():
        smaller.generation_config = copy.deepcopy(model.generation_config)
    found = find_stack(smaller, where)
    with torch.no_grad(), evaluating(model), stack.skipping(set(range(depth)) - set(kept)):
        if not torch.allclose(found.run(stack.probe), stack.run(stack.probe), atol=1e-4, rtol=1e-3):
            raise _differs(stack)
    return smaller


def _differs(stack: Stack) -> SettingsError:
    return SettingsError(
        f"layers cannot be removed from this {stack.model.config.model_type!r} checkpoint: what is left would compute something else "
        "than the model without them, as where the config gives a layer its role by its number; only diagnose can leave them out"
    )


def pruned_config(config: Any, kept: list[int]) -> Any:
    """A config for the layers `kept`, counted from 0, of a model: their number, and every list of its layers."""
    depth = config.num_hidden_layers
    entries: dict[str, Any] = copy.deepcopy(config.to_dict())
    number = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    for name, value in entries.items():
        if isinstance(value, list) and len(value) == depth and "layer" in name:
            entries[name] = [value[index] for index in kept]
    if entries.get("mlp_only_layers"):  # numbers of layers, in the families with experts
        entries["mlp_only_layers"] = [new for new, old in enumerate(kept) if old in entries["mlp_only_layers"]]
    if getattr(config, "placement", None) is not None:
        placement = Placement.from_json(config.placement)
        removed = ", ".join(str(index + 1) for index in range(depth) if index not in kept)
        smaller = dataclasses.replace(
            placement,
            name=f"{placement.name} without layers {removed}",
            layers=tuple(placement.layers[index] for index in kept),
        )
        entries["placement"] = smaller.to_json()
    entries[number] = len(kept)
    return type(config).from_dict(entries)
