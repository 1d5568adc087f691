"""From the stock layout of a checkpoint to the placed one and back, where that is exact; and from that of the Mix-LN authors.

Weights trained under one placement compute something else under another. So only the layout changes here: the records say
what the stock model does, and both are run on the same input before anything is written.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from mixln.errors import CheckpointError, PlacementError, first_line
from mixln.hosts import family, placed_config, placement_for, stock_entries
from mixln.hosts.families import HOSTS
from mixln.hosts.family import Host, copy_weights, head_size
from mixln.hosts.probe import probe
from mixln.hosts.weights import check_size
from mixln.placement import Layer, Placement
from mixln.placement.zoo import POST, PRE, SANDWICH

TOLERANCE = 1e-4
"""Largest difference between the logits of the two layouts, as a share of the largest logit, in float32."""


def place(model: PreTrainedModel, placement: str = "stock") -> PreTrainedModel:
    """A stock model in the placed layout, with the same weights and the same outputs.

    :param model: a model of a known family, as one of its stock classes.
    :param placement: must be what the family does; `stock` always is.
    :raises PlacementError: if it is another, or the class is none that can be placed.
    """
    host = family(model.config)
    wanted = placement_for(model.config, placement)
    if difference := _difference(wanted, host.stock):
        raise PlacementError(
            f"the weights of a stock {host.model_type} cannot be given {placement}: they were trained as "
            f"{host.stock.formula}, and {difference}; convert with --placement stock, or train {placement} from its start"
        )
    target = _empty(_builder(host, model, placed=True), placed_config(model.config, wanted), model)
    copy_weights(model, target, host.canonical)
    return _checked(model, target)


def unplace(model: PreTrainedModel) -> PreTrainedModel:
    """A placed model in the stock layout of the family that does what its records say, with the same weights and outputs.

    That is its own family (`stock`), or one that differs from it in the norms alone: Pre-LN goes to Llama, res-post to OLMo 2,
    QK-norm with Pre-LN to Qwen3.

    :raises PlacementError: if no family does it, with the first layer that differs.
    """
    own = family(model.config)
    placement = Placement.from_json(model.config.placement)
    related = sorted(
        (host for host in HOSTS.values() if host is own or (own.body and host.body == own.body)),
        key=lambda host: host is not own,
    )
    differences = {host.model_type: _difference(placement, host.stock) for host in related}
    host = next((host for host in related if not differences[host.model_type]), None)
    if host is None:
        raise PlacementError(
            f"{placement.name} has no stock layout: {differences[own.model_type]}, and "
            + "; ".join(f"{each.model_type} does {each.stock.formula}" for each in related)
        )
    config = _stock_config(model.config, own, host)
    target = _empty(_builder(host, model, placed=False), config, model)
    copy_weights(model, target, host.canonical)
    return _checked(model, target)


def from_mix_ln(folder: Path, config: PreTrainedConfig, placement: str) -> PreTrainedModel:
    """A placed Llama from a checkpoint that the Mix-LN authors' code wrote.

    Its names are those of a stock Llama and `post_feedforward_layernorm`; which layers are Post-LN stood in environment
    variables and is not in the file, but shows in the norms that each layer has: they must be those of `placement`, all and
    no others. In their Post-LN layers the norm after the attention is `post_attention_layernorm`, in their Pre-LN layers
    that is the one before the feed-forward. Their other experiments with Post-LN's norms (`deeppost`, whose factor on the
    skip differs between versions) cannot be told apart from Post-LN by the file.

    :param folder: with `model.safetensors` or `pytorch_model.bin`.
    :param config: its Llama config.
    :raises CheckpointError: if the norms are not those of the placement, or a weight is missing, extra or misshapen.
    """
    wanted = placed_config(config, placement)
    records = Placement.from_json(wanted.placement)
    if not records.only_layers:
        raise PlacementError(
            f"{placement} cannot be read from a checkpoint of the Mix-LN authors: it has more than norms in its layers"
        )
    weights = _weights(folder)
    renamed: dict[str, str] = {}
    for index, record in enumerate(records.layers):
        renamed |= _norm_names(f"model.layers.{index}", record, placement)
    found, expected = _norms(weights), set(renamed.values())
    if wrong := sorted(expected - found) or sorted(found - expected):
        raise CheckpointError(
            f"checkpoint {folder} is not {placement}: norm {wrong[0]} is {'missing' if wrong[0] in expected else 'extra'}; "
            f"its norms say {_read_off(found, len(records.layers))}"
        )
    auto = HOSTS["llama"].heads["causal-lm"][1]
    check_size(str(folder), wanted, auto, sum(weight.numel() for weight in weights.values()), len(weights))
    with no_init_weights():
        model = auto.from_config(wanted, dtype=next(iter(weights.values())).dtype)
    model.tie_weights()
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
    """Whether a folder holds a Llama with a norm that no stock Llama has, and that the Mix-LN authors' code gives it."""
    if config.model_type != "llama" or not any((folder / name).is_file() for name in READERS):
        return False
    return any("post_feedforward_layernorm" in name for name in _names(folder))


def _norm_names(layer: str, record: Layer, placement: str) -> dict[str, str]:
    """Our name of each norm of a layer → the authors'."""
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
    """Names of the norms within the layers."""
    return {name for name in weights if ".layers." in name and "norm" in name}


def _read_off(norms: set[str], layers: int) -> str:
    """What the norms of a checkpoint say about its layers, in the little language."""
    kinds = []
    for index in range(layers):
        has = {name.split(".")[3] for name in norms if name.startswith(f"model.layers.{index}.")}
        kinds.append(KINDS.get(frozenset(has), "something else"))
    runs: list[list[Any]] = []
    for kind in kinds:
        if runs and runs[-1][0] == kind:
            runs[-1][1] += 1
        else:
            runs.append([kind, 1])
    return ",".join(f"{kind}*{count}" for kind, count in runs)


def _difference(placement: Placement, stock: Layer) -> str:
    """How a placement differs from a family whose layers are all `stock`; empty if it does not."""
    for number, layer in enumerate(placement.layers, start=1):
        if layer != stock:
            return f"layer {number} of {placement.name} is {layer.formula}"
    return "" if placement.only_layers else f"{placement.name} has more than norms in its layers"


def _builder(host: Host, model: PreTrainedModel, *, placed: bool) -> Callable[..., PreTrainedModel]:
    """What builds the other layout of a model, with the same head, from a config."""
    own = family(model.config)
    name = type(model).__name__.removeprefix("Placed")
    head = next((head for head, (stock, _) in own.heads.items() if stock.__name__ == name), None)
    if head is None:
        known = ", ".join(stock.__name__ for stock, _ in own.heads.values())
        raise PlacementError(f"a {name} cannot be converted; classes of {own.model_type} that can: {known}")
    stock, auto = host.heads[head]
    return auto.from_config if placed else stock._from_config  # type: ignore[no-any-return]


def _empty(build: Callable[..., PreTrainedModel], config: PreTrainedConfig, like: PreTrainedModel) -> PreTrainedModel:
    """A model without values, in the number format of another."""
    chosen: dict[str, Any] = {"attn_implementation": like.config._attn_implementation}
    if like.config._experts_implementation is not None:
        chosen["experts_implementation"] = like.config._experts_implementation
    with no_init_weights():
        model = build(config, dtype=like.dtype, **chosen)
    model.tie_weights()  # which a model that is not initialised leaves out
    if model.can_generate() and like.can_generate():
        model.generation_config = copy.deepcopy(like.generation_config)
    return model.eval()


def _stock_config(config: PreTrainedConfig, own: Host, host: Host) -> PreTrainedConfig:
    """The config of a family with the same body, from a placed one of another.

    :raises PlacementError: if it has an entry that the other family does not know, and that is not as it is by itself.
    """
    entries = stock_entries(config)
    if host is not own:
        theirs, neutral = host.config().to_dict(), own.config().to_dict()
        neutral |= {
            "head_dim": config.hidden_size // config.num_attention_heads,
            "layer_types": ["full_attention"] * config.num_hidden_layers,
        }
        if not entries.get("use_sliding_window"):
            neutral |= {"max_window_layers": entries.get("max_window_layers")}  # says nothing then
        if "head_dim" in theirs:
            entries["head_dim"] = head_size(config)
        for name in sorted(entries.keys() - theirs.keys()):
            if (value := entries.pop(name)) != neutral.get(name):
                raise PlacementError(
                    f"{name} of this {own.model_type} is {value}, which the stock layout of {host.model_type} cannot say"
                )
    return host.config(**entries)


@torch.no_grad()
def _checked(source: PreTrainedModel, target: PreTrainedModel) -> PreTrainedModel:
    """The target, if it does what the source does.

    :raises CheckpointError: if it does not.
    """
    source.eval()
    given = probe(source, length=64)
    expected, actual = (model(**given).logits.float() for model in (source, target))
    if not expected.isfinite().all():
        raise CheckpointError(f"the {type(source).__name__} gives outputs that are not finite: its weights are damaged")
    limit = TOLERANCE if source.dtype == torch.float32 else 100 * TOLERANCE
    if not (actual - expected).abs().max() <= limit * expected.abs().max():
        raise CheckpointError(
            f"the converted {type(target).__name__} does not give the outputs of the {type(source).__name__}: "
            f"largest difference {(actual - expected).abs().max().item():.2g}; nothing was written"
        )
    return target


def _weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint of one file, without the rotary tables that old versions stored.

    :raises CheckpointError: if there is none, or it cannot be read.
    """
    for name, read in READERS.items():
        if not (folder / name).is_file():
            continue
        try:
            stored = read(folder / name)
        except Exception as error:  # safetensors and torch raise many kinds
            raise CheckpointError(f"checkpoint {folder / name} cannot be read: {first_line(error)}") from error
        weights = {key: value for key, value in stored.items() if not key.endswith("rotary_emb.inv_freq")}
        if wrong := sorted(key for key, value in weights.items() if not value.is_floating_point()):
            raise CheckpointError(
                f"checkpoint {folder / name}: weight {wrong[0]} is stored as {weights[wrong[0]].dtype}, and must be floating-point numbers"
            )
        return weights
    raise CheckpointError(
        f"checkpoint {folder} holds none of {', '.join(READERS)}; one file with all weights is needed"
    )


def _names(folder: Path) -> Iterable[str]:
    """The names of the weights of a checkpoint of one file, without reading the weights where the format allows it."""
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
"""The layers that the Mix-LN authors' code knows."""
KINDS = {
    frozenset(name.split(".")[3] for name in _norm_names("model.layers.0", layer, kind).values()): kind
    for layer, kind in AUTHORS.items()
}
"""The norms that a layer of the authors' checkpoints has → what it is."""
