"""Removing layers for good: a smaller checkpoint whose other layers keep their roles."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Collection
from typing import Any

import torch
from transformers import PreTrainedModel

from mixln.diagnostics.stack import Stack, evaluating, find_stack, fresh
from mixln.errors import SettingsError
from mixln.hosts.configs import is_placed
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
    try:
        smaller: Any = fresh(model, pruned_config(model.config, kept)).eval()
    except Exception as error:  # config and model classes raise many kinds for a number of layers that they cannot have
        raise _differs(stack) from error
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


NUMBERS = re.compile(
    r".*(_idxs|indexes|_block_indices|_layer_ids|mlp_only_layers|moe_layers|cross_attention_layers|rope_scaling_layers)"
)
"""Names of the lists of a config that hold the numbers of some layers, counted from 0."""
VALUES = re.compile(r".*layer.*|attention_window|sliding_windows")
"""Names of the lists that hold one value a layer where they have as many entries; others are known by the class's own defaults."""


def pruned_config(config: Any, kept: list[int]) -> Any:
    """A config for the layers `kept`, counted from 0, of a model: their number, and every list of its layers.

    :raises Exception: of many kinds, where a family does not let its number of layers be chosen.
    """
    depth = config.num_hidden_layers
    entries: dict[str, Any] = copy.deepcopy(config.to_dict())
    number = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    for name, value in entries.items():
        if name == "per_layer_config" and isinstance(value, dict):  # what differs in some layers, by their numbers
            entries[name] = {new: value[old] for new, old in enumerate(kept) if old in value}
        if not isinstance(value, list | tuple):
            continue
        if NUMBERS.fullmatch(name):
            entries[name] = [new for new, old in enumerate(kept) if old in value]
        elif len(value) == depth and (VALUES.fullmatch(name) or _follows_depth(type(config), number, name)):
            entries[name] = [value[index] for index in kept]
    if "attention_types" in entries and "attention_layers" in entries:  # GPT-Neo's, a short form of the other
        entries["attention_types"] = [[[kind], 1] for kind in entries["attention_layers"]]
    if "stage_names" in entries:
        entries |= _stages(entries, depth, kept)
    if is_placed(config):
        placement = Placement.from_json(config.placement)
        removed = ", ".join(str(index + 1) for index in range(depth) if index not in kept)
        entries["placement"] = dataclasses.replace(
            placement,
            name=f"{placement.name} without layers {removed}",
            layers=tuple(placement.layers[index] for index in kept),
        ).to_json()
    entries[number] = len(kept)
    smaller = type(config).from_dict(entries)
    if smaller.num_hidden_layers != len(kept):
        raise ValueError(f"{type(config).__name__} takes its number of layers from other entries")
    return smaller


def _stages(entries: dict[str, Any], depth: int, kept: list[int]) -> dict[str, Any]:
    """The outputs of a backbone, as `AutoBackbone` gives them: stage 0 is the embeddings, stage i layer i, counted from 1.

    Those of layers that are removed go with them, but the last layer is always one where it was before.
    """
    before = entries.get("out_indices") or [depth]
    stages = [new for new, old in enumerate([0, *(index + 1 for index in kept)]) if old in before]
    if depth in before:
        stages = sorted({*stages, len(kept)})
    return {"out_indices": stages or [len(kept)], "out_features": None, "stage_names": None}


def _follows_depth(kind: Any, number: str, name: str) -> bool:
    """True if a list that a config class makes by itself has one entry a layer."""
    try:
        return all(len(getattr(kind(**{number: depth}), name)) == depth for depth in (5, 6))
    except Exception:  # the class has no such list, or does not let the number of layers be chosen
        return False
