"""Removes layers from a checkpoint."""

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
from mixln.hosts.configs import is_placed, text_part
from mixln.nn.residual import PlacedLayer
from mixln.placement import Layer, Placement


def prune(stack: Stack, layers: Collection[int]) -> PreTrainedModel:
    """The same model without some layers. The others keep their weights, placement records and per-layer config entries.

    The outputs of the pruned model are compared with those of the whole model skipping these layers.

    :param layers: layers to remove, counted from 1.
    :returns: a new model that shares no weights with the given one.
    :raises SettingsError: if a layer does not exist, none would be left, later layers read the outputs of earlier ones by their number,
        or the outputs differ, as in families whose layers depend on their index.
    """
    depth = len(stack)
    if wrong := sorted(layer for layer in layers if not 1 <= layer <= depth):
        raise SettingsError(f"layers must lie within 1 to {depth}, got {wrong[0]}")
    kept = [index for index in range(depth) if index + 1 not in layers]
    if not kept:
        raise SettingsError(f"layers must leave at least one of the model's {depth}, got all of them")
    if len(kept) == depth:
        raise SettingsError("layers must name at least one layer to remove, got none")
    stack.check_skipping()
    model = stack.model
    where = next(name for name, module in model.named_modules() if module is stack.layers)
    try:
        smaller: Any = fresh(model, pruned_config(model.config, kept)).eval()
    except Exception as error:  # config and model classes raise various exceptions for an unsupported number of layers
        raise _differs(stack) from error
    renamed = {f"{where}.{old}": f"{where}.{new}" for new, old in enumerate(kept)}
    parts = where.count(".") + 2  # dotted parts of a layer's name: those of the list, and the index
    weights = {}
    for name, weight in model.state_dict().items():
        layer = ".".join(name.split(".")[:parts])
        if layer in renamed:
            weights[renamed[layer] + name.removeprefix(layer)] = weight
        elif not name.startswith(f"{where}."):
            weights[name] = weight
    first = stack.layers[0]
    # The embedding norm moves to the new first layer.
    if isinstance(first, PlacedLayer) and first.stream_in is not None:
        weights |= {f"{where}.0.stream_in.{name}": weight for name, weight in first.stream_in.state_dict().items()}
    try:
        smaller.load_state_dict(weights)
    except RuntimeError as error:
        raise _differs(stack) from error
    if model.can_generate():
        smaller.generation_config = copy.deepcopy(model.generation_config)
    pruned = find_stack(smaller, where)
    with torch.no_grad(), evaluating(model), stack.skipping(set(range(depth)) - set(kept)):
        # Both run the same operations, so only rounding may differ; a layer in the wrong role differs by far more.
        if not torch.allclose(pruned.run(stack.probe), stack.run(stack.probe), atol=1e-4, rtol=1e-3):
            raise _differs(stack)
    return smaller


def _differs(stack: Stack) -> SettingsError:
    return SettingsError(
        f"layers cannot be removed from this {stack.model.config.model_type!r} checkpoint: the pruned model would not compute the same "
        "as the whole model skipping them, for example because a layer's role depends on its index; use mixln diagnose to skip them"
    )


NUMBERS = re.compile(
    r".*(_idxs|indexes|_block_indices|_layer_ids|mlp_only_layers|moe_layers|cross_attention_layers|rope_scaling_layers)"
)
"""Names of config lists that hold indices of layers, counted from 0."""
VALUES = re.compile(r".*layer.*|attention_window|sliding_windows")
"""Names of config lists that hold one value per layer if they have as many entries as the model has layers.

Other such lists are recognized by :func:`_follows_depth`.
"""


def pruned_config(config: Any, kept: list[int]) -> Any:
    """The config of a model with only the layers `kept`, counted from 0: sets their number and shortens all per-layer lists.

    :raises Exception: of various types, if the number of layers of the family is fixed or depends on other entries.
    """
    text: Any = text_part(config)
    if text is not config:  # a multimodal model: the language model's entries are those of a config within its config
        whole = copy.deepcopy(config)
        name = next(name for name in config.sub_configs if getattr(config, name) is text)
        setattr(whole, name, pruned_config(text, kept))
        return whole
    depth = config.num_hidden_layers
    entries: dict[str, Any] = copy.deepcopy(config.to_dict())
    number = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    for name, value in entries.items():
        if name == "per_layer_config" and isinstance(value, dict):  # layer index → overrides for that layer
            entries[name] = {new: value[old] for new, old in enumerate(kept) if old in value}
        if not isinstance(value, list | tuple):
            continue
        if NUMBERS.fullmatch(name):
            entries[name] = [new for new, old in enumerate(kept) if old in value]
        elif len(value) == depth and (VALUES.fullmatch(name) or _follows_depth(type(config), number, name)):
            entries[name] = [value[index] for index in kept]
    # GPT-Neo: the run-length form of attention_layers.
    if "attention_types" in entries and "attention_layers" in entries:
        entries["attention_types"] = [[[kind], 1] for kind in entries["attention_layers"]]
    if "stage_names" in entries:
        entries |= _stages(entries, depth, kept)
    if is_placed(config):
        placement = Placement.from_json(config.placement)
        removed = ", ".join(str(index + 1) for index in range(depth) if index not in kept)
        entries["placement"] = dataclasses.replace(
            placement,
            name=f"{placement.name} without layers {removed}",
            layers=tuple(_kept(placement, index) for index in kept),
        ).to_json()
    entries[number] = len(kept)
    smaller = type(config).from_dict(entries)
    if smaller.num_hidden_layers != len(kept):
        raise ValueError(f"{type(config).__name__} derives its number of layers from other entries")
    return smaller


def _kept(placement: Placement, index: int) -> Layer:
    """The record of a layer, counted from 0, with its number where its scale depends on that."""
    layer = placement.layers[index]
    return dataclasses.replace(layer, number=layer.number or index + 1) if placement.numbered else layer


def _stages(entries: dict[str, Any], depth: int, kept: list[int]) -> dict[str, Any]:
    """The output stages of a backbone (`AutoBackbone`): stage 0 is the embeddings, stage i is layer i, counted from 1.

    Stages of removed layers are dropped. If the last layer was a stage, the new last layer is one.
    """
    before = entries.get("out_indices") or [depth]
    stages = [new for new, old in enumerate([0, *(index + 1 for index in kept)]) if old in before]
    if depth in before:
        stages = sorted({*stages, len(kept)})
    return {"out_indices": stages or [len(kept)], "out_features": None, "stage_names": None}


def _follows_depth(kind: Any, number: str, name: str) -> bool:
    """Whether the config class by itself builds this list with one entry per layer."""
    try:
        return all(len(getattr(kind(**{number: depth}), name)) == depth for depth in (5, 6))
    except Exception:  # the class has no such list, or its number of layers cannot be set
        return False
