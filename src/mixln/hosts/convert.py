"""Converts checkpoints between the stock and the placed layout where that is exact, and from the layout of the Mix-LN authors.

Weights trained with one placement compute a different function with another. So only the layout changes here: the records describe
the stock model, and the outputs of both models are compared before anything is written.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from mixln.errors import CheckpointError, PlacementError, first_line
from mixln.hosts import family, placed_config
from mixln.hosts.configs import stock_entries
from mixln.hosts.families import HOSTS
from mixln.hosts.family import Host, copy_weights, head_size
from mixln.hosts.probe import probe
from mixln.hosts.weights import check_size
from mixln.placement import Layer, Placement
from mixln.placement.entry import POST, PRE, SANDWICH

TOLERANCE = 1e-4
"""Largest allowed difference between the logits of the two layouts in float32, as a fraction of the largest logit."""


def place(model: PreTrainedModel, placement: str = "stock") -> PreTrainedModel:
    """Converts a stock model to the placed layout, with the same weights and outputs.

    :param model: instance of a stock class of a known family.
    :param placement: must be equal to the family's own; `stock` always is.
    :raises PlacementError: if it is not, or the class cannot be placed.
    """
    host = family(model.config)
    wanted = host.placement(model.config, placement)
    if difference := _difference(wanted, host, model.config):
        raise PlacementError(
            f"the weights of a stock {host.model_type} cannot be given {placement}: they were trained as "
            f"{host.formula}, but {difference}; convert with --placement stock, or train {placement} from scratch"
        )
    target = _empty(_builder(host, model, placed=True), placed_config(model.config, wanted), model)
    copy_weights(model, target, host.canonical)
    return _checked(model, target)


def unplace(model: PreTrainedModel) -> PreTrainedModel:
    """Converts a placed model to the stock layout of a family with the same placement, with the same weights and outputs.

    That is its own family (`stock`), or one that differs only in its norms: Pre-LN becomes Llama, res-post OLMo 2, and QK-norm
    with Pre-LN Qwen3.

    :raises PlacementError: if no family has this placement, with the first layer that differs.
    """
    own = family(model.config)
    placement = Placement.from_json(model.config.placement)
    relatives = {name: host for name, host in HOSTS.items() if own.body and host.body == own.body}
    related = ({own.model_type: own} | relatives).values()
    differences = {host.model_type: _difference(placement, host, model.config) for host in related}
    host = next((host for host in related if not differences[host.model_type]), None)
    if host is None:
        raise PlacementError(
            f"{placement.name} has no stock layout: {differences[own.model_type]}, and "
            + "; ".join(f"{host.model_type} has {host.formula}" for host in related)
        )
    config = _stock_config(model.config, own, host)
    target = _empty(_builder(host, model, placed=False), config, model)
    copy_weights(model, target, host.canonical)
    return _checked(model, target)


def from_mix_ln(folder: Path, config: PreTrainedConfig, placement: str) -> PreTrainedModel:
    """Builds a placed Llama from a checkpoint written by the Mix-LN authors' code.

    Weights have the names of a stock Llama, plus `post_feedforward_layernorm`. Environment variables defined which layers are
    Post-LN; the file only shows which norms each layer has, and they must be exactly those of `placement`. The name
    `post_attention_layernorm` is the norm after the attention in Post-LN layers, and the norm before the feed-forward in Pre-LN
    layers. The file does not distinguish the authors' other experiments with the norms of Post-LN (`deeppost`, whose factor on
    the skip differs between versions) from Post-LN.

    :param folder: folder with `model.safetensors` or `pytorch_model.bin`.
    :param config: Llama config of the checkpoint.
    :raises CheckpointError: if the norms are not those of the placement, or a weight is missing, extra or misshapen.
    """
    wanted = placed_config(config, placement)
    records = Placement.from_json(wanted.placement)
    if not records.only_layers:
        raise PlacementError(
            f"{placement} cannot be read from a checkpoint of the Mix-LN authors: it has norms or streams outside its layers"
        )
    weights = _weights(folder)
    renamed: dict[str, str] = {}
    for index, record in enumerate(records.layers):
        renamed |= _norm_names(f"model.layers.{index}", record, placement)
    present, expected = _norms(weights), set(renamed.values())
    if wrong := sorted(expected - present) or sorted(present - expected):
        raise CheckpointError(
            f"checkpoint {folder} is not {placement}: norm {wrong[0]} is {'missing' if wrong[0] in expected else 'extra'}; "
            f"its norms are those of {_read_off(present, len(records.layers))}"
        )
    auto = HOSTS["llama"].heads["causal-lm"][1]
    check_size(str(folder), wanted, auto, sum(weight.numel() for weight in weights.values()), len(weights))
    with no_init_weights():
        model = auto.from_config(wanted, dtype=next(iter(weights.values())).dtype)
    model.tie_weights()  # skipped by transformers for a model that is not initialised
    own_names: list[str] = list(model.state_dict())
    names = {ours: renamed.get(ours, ours) for ours in own_names}
    if wrong := sorted(set(names.values()) ^ weights.keys()):
        raise CheckpointError(
            f"checkpoint {folder}: weight {wrong[0]} is {'extra' if wrong[0] in weights else 'missing'} for this Llama config"
        )
    try:
        model.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()})
    except RuntimeError as error:
        raise CheckpointError(
            f"checkpoint {folder} does not fit its config: {str(error).splitlines()[-1].strip()}"
        ) from error
    return model.eval()


def is_mix_ln(folder: Path, config: PreTrainedConfig) -> bool:
    """Whether a folder holds a Llama with a norm that only the Mix-LN authors' code adds, not the stock Llama."""
    if config.model_type != "llama" or not any((folder / name).is_file() for name in READERS):
        return False
    return any("post_feedforward_layernorm" in name for name in _names(folder))


def _norm_names(layer: str, record: Layer, placement: str) -> dict[str, str]:
    """Name of each norm of a layer in mixln → its name in the authors' code."""
    sandwich = record.attention.branch_out is not None
    theirs = {
        "attention_residual.branch_in": "input_layernorm",
        "attention_residual.branch_out": "post_attention_layernorm",
        "attention_residual.stream_out": "post_attention_layernorm",
        "feed_forward_residual.branch_in": "pre_feedforward_layernorm" if sandwich else "post_attention_layernorm",
        "feed_forward_residual.branch_out": "post_feedforward_layernorm",
        "feed_forward_residual.stream_out": "post_feedforward_layernorm",
    }
    present = {
        f"{side}_residual.{slot}"
        for side in ("attention", "feed_forward")
        for slot in ("branch_in", "branch_out", "stream_out")
        if getattr(getattr(record, side), slot) is not None
    }
    if record in AUTHORS:
        return {f"{layer}.{slot}.weight": f"{layer}.{theirs[slot]}.weight" for slot in present}
    raise PlacementError(
        f"{placement} cannot be read from a checkpoint of the Mix-LN authors: only Pre-LN, Post-LN and Sandwich-LN layers can, "
        f"got {record.formula}"
    )


def _norms(weights: Mapping[str, Tensor]) -> set[str]:
    """Names of the norms inside the layers."""
    return {name for name in weights if ".layers." in name and "norm" in name}


def _read_off(norms: set[str], layers: int) -> str:
    """The placement that the norms in a checkpoint indicate, in the notation of placements."""
    kinds = []
    for index in range(layers):
        # model.layers.INDEX.NORM.weight
        has = {name.split(".")[3] for name in norms if name.startswith(f"model.layers.{index}.")}
        kinds.append(KINDS.get(frozenset(has), "something else"))
    runs: list[list[Any]] = []
    for kind in kinds:
        if runs and runs[-1][0] == kind:
            runs[-1][1] += 1
        else:
            runs.append([kind, 1])
    return ",".join(f"{kind}*{count}" for kind, count in runs)


def _difference(placement: Placement, host: Host, config: Any) -> str:
    """Describes how a placement differs from a family's own; empty if it does not."""
    stock = host.placement(config, "stock")
    for part, own in zip(placement.stacks, stock.stacks, strict=True):
        for number, (layer, its) in enumerate(zip(part.layers, own.layers, strict=True), start=1):
            if layer != its:
                return f"layer {number} of {placement.name} is {layer.formula}"
    if replace(placement, name=stock.name, init=stock.init) == stock:
        return ""
    return f"{placement.name} has {'' if stock.only_layers else 'other '}norms or streams outside its layers"


def _builder(host: Host, model: PreTrainedModel, *, placed: bool) -> Callable[..., PreTrainedModel]:
    """Returns the function that builds the other layout of a model, with the same head, from a config."""
    own = family(model.config)
    name = type(model).__name__.removeprefix("Placed")
    head = next((head for head, (stock, _) in own.heads.items() if stock.__name__ == name), None)
    if head is None:
        known = ", ".join(stock.__name__ for stock, _ in own.heads.values())
        raise PlacementError(f"a {name} cannot be converted; classes of {own.model_type} that can: {known}")
    stock, auto = host.heads[head]
    return auto.from_config if placed else stock._from_config  # type: ignore[no-any-return]


def _empty(build: Callable[..., PreTrainedModel], config: PreTrainedConfig, like: PreTrainedModel) -> PreTrainedModel:
    """Builds a model without initial values, with the dtype and implementations of another."""
    implementations: dict[str, Any] = {"attn_implementation": like.config._attn_implementation}
    if like.config._experts_implementation is not None:
        implementations["experts_implementation"] = like.config._experts_implementation
    with no_init_weights():
        model = build(config, dtype=like.dtype, **implementations)
    model.tie_weights()  # skipped by transformers for a model that is not initialised
    if model.can_generate() and like.can_generate():
        model.generation_config = copy.deepcopy(like.generation_config)
    return model.eval()


def _stock_config(config: PreTrainedConfig, own: Host, host: Host) -> PreTrainedConfig:
    """Converts a placed config to the stock config of a family with the same body.

    :raises PlacementError: if an entry that the other family lacks does not have its default value.
    """
    entries = stock_entries(config)
    if host is not own:
        theirs, neutral = host.config().to_dict(), own.config().to_dict()
        # Defaults that depend on the other entries.
        neutral |= {
            "head_dim": config.hidden_size // config.num_attention_heads,
            "layer_types": ["full_attention"] * config.num_hidden_layers,
        }
        if not entries.get("use_sliding_window"):
            neutral |= {"max_window_layers": entries.get("max_window_layers")}  # unused without a sliding window
        if "head_dim" in theirs:
            entries["head_dim"] = head_size(config)  # explicit: defaults differ between families
        for name in sorted(entries.keys() - theirs.keys()):
            if (value := entries.pop(name)) != neutral.get(name):
                raise PlacementError(
                    f"{name} of this {own.model_type} is {value}, which a stock {host.model_type} does not support"
                )
    return host.config(**entries)


@torch.no_grad()
def _checked(source: PreTrainedModel, target: PreTrainedModel) -> PreTrainedModel:
    """Returns the target if its outputs equal those of the source.

    :raises CheckpointError: if they do not.
    """
    source.eval()
    inputs = probe(source, length=64)
    expected, actual = (model(**inputs).logits.float() for model in (source, target))
    if not expected.isfinite().all():
        raise CheckpointError(f"the {type(source).__name__} gives outputs that are not finite: its weights are corrupt")
    # bfloat16 has 8 significant bits, a relative rounding error of 0.4%.
    limit = TOLERANCE if source.dtype == torch.float32 else 100 * TOLERANCE
    # `not … <=`, so that NaN fails too.
    if not (actual - expected).abs().max() <= limit * expected.abs().max():
        raise CheckpointError(
            f"the converted {type(target).__name__} does not give the outputs of the {type(source).__name__}: "
            f"largest difference {(actual - expected).abs().max().item():.2g}; nothing was written"
        )
    return target


def _weights(folder: Path) -> dict[str, Tensor]:
    """Reads the weights of a single-file checkpoint, without the rotary tables that old versions stored.

    :raises CheckpointError: if there is no such file, or it cannot be read.
    """
    for name, read in READERS.items():
        if not (folder / name).is_file():
            continue
        try:
            stored = read(folder / name)
        except Exception as error:  # safetensors and torch raise many types
            raise CheckpointError(f"checkpoint {folder / name} cannot be read: {first_line(error)}") from error
        weights = {key: value for key, value in stored.items() if not key.endswith("rotary_emb.inv_freq")}
        if wrong := sorted(key for key, value in weights.items() if not value.is_floating_point()):
            raise CheckpointError(
                f"checkpoint {folder / name}: weight {wrong[0]} is stored as {weights[wrong[0]].dtype}, but must be floating point"
            )
        return weights
    raise CheckpointError(
        f"checkpoint {folder} has none of {', '.join(READERS)}; a single file with all weights is required"
    )


def _names(folder: Path) -> Iterable[str]:
    """Names of the weights in a single-file checkpoint; the weights themselves are read only if the format requires it."""
    if (path := folder / "model.safetensors").is_file():
        try:
            with safe_open(path, framework="pt") as file:
                return list(file.keys())
        except Exception as error:  # as above
            raise CheckpointError(f"checkpoint {path} cannot be read: {first_line(error)}") from error
    return _weights(folder)


def _torch_weights(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


READERS = {"model.safetensors": load_file, "pytorch_model.bin": _torch_weights}
AUTHORS = {PRE: "pre", POST: "post", SANDWICH: "sandwich"}
"""Layers of the Mix-LN authors' code → their name in the notation of placements."""
KINDS = {
    frozenset(name.split(".")[3] for name in _norm_names("model.layers.0", layer, kind).values()): kind
    for layer, kind in AUTHORS.items()
}
"""Norms of a layer in the authors' checkpoints → placement of the layer."""
