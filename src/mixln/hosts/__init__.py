"""Builds and loads placed models of Hugging Face families. Once this is imported, the `Auto*` classes open placed checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from mixln.errors import CheckpointError, PlacementError, PlacementWarning, SettingsError, unknown
from mixln.hosts.configs import stock_entries
from mixln.hosts.families import HOSTS as HOSTS
from mixln.hosts.families import host_of
from mixln.hosts.family import Host, check_shape
from mixln.hosts.verify import check_verified
from mixln.nn.schemes import scheme
from mixln.placement import Placement
from mixln.placement.preflight import risks

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
"""Arguments of `from_pretrained` that locate a checkpoint, and with it its config."""


def family(config: PreTrainedConfig) -> Host:
    """Returns the host record for a stock or placed config.

    :raises SettingsError: if it is not a transformers config.
    :raises PlacementError: if its family is unknown, its code cannot be read, or the placed model computes something else.
    """
    if not isinstance(config, PreTrainedConfig):
        raise SettingsError(
            f"config must be a transformers config, got {config!r}; read a folder with AutoConfig.from_pretrained"
        )
    host = host_of(config.model_type.removeprefix("placed_"))
    check_verified(host)
    return host


def placement_for(config: PreTrainedConfig, placement: str | Placement) -> Placement:
    """Builds the placement named by a string for the family and depth of a config.

    :raises SettingsError: see :func:`family` and :func:`mixln.placement.placement`.
    """
    return family(config).placement(config, placement)


def placed_config(
    config: PreTrainedConfig,
    placement: str | Placement,
    init: str | None = None,
    *,
    stochastic_depth: float | None = None,
) -> PreTrainedConfig:
    """Makes the config of a placed model from a stock config.

    :param config: config of a known family, stock or already placed (the placement is then replaced).
    :param placement: for example `mix(0.25)`; see :func:`mixln.placement.placement`. The family's own norms on q and k stay
        where a string does not set its own; a :class:`~mixln.placement.Placement` is used unchanged.
    :param init: name of the initialisation; by default the one that the placement recommends.
    :param stochastic_depth: probability of dropping a branch of the last layer for a sample in training; it rises linearly
        from 0 in the first layer. By default that of an already placed config, or 0.
    :raises SettingsError: if the family cannot be placed, the init is unknown, the placement has another number of layers, the host
        does not support it, the attention heads do not divide, or `stochastic_depth` is outside [0, 1). A norm that does not fit a
        projection is found only when the model is built.
    """
    host = family(config)
    for stack in host.stacks:
        check_shape(stack.seen(config))
    built = host.placement(config, placement)
    if reason := host.cannot(config, built) or host.own.cannot(config, built):
        raise PlacementError(f"this {host.model_type} cannot be placed: {reason}")
    if (built.streams != "single" or built.carries_values) and not host.folds:
        raise PlacementError(
            f"{built.name} cannot be placed in {host.model_type}: it joins the states beside its stream before the final norm, and "
            f"{host.base.__name__} has none of its own; choose a placement of one stream alone"
        )
    init = scheme(init or built.init).name
    if "+" in init and "embedding" not in host.roles.values():
        raise SettingsError(
            f"init {init}: a {host.model_type} has no token embeddings to initialise differently; omit the part before the +"
        )
    depth = getattr(config, "stochastic_depth", 0.0) if stochastic_depth is None else stochastic_depth
    if not 0 <= depth < 1:
        raise SettingsError(f"stochastic-depth must lie in [0, 1), got {depth}")
    entries = stock_entries(config) | {"placement": built.to_json(), "init": init, "stochastic_depth": depth}
    placed = AutoConfig.for_model(f"placed_{host.model_type}", **entries)
    # Not entries of to_dict(), so they are copied one by one.
    placed._attn_implementation = config._attn_implementation
    placed._experts_implementation = config._experts_implementation
    return placed


def from_config(
    config: PreTrainedConfig,
    *,
    placement: str | Placement,
    init: str | None = None,
    head: str | None = None,
    stochastic_depth: float | None = None,
    **kwargs: Any,
) -> PreTrainedModel:
    """Builds a model with the given normalization placement, initialised from torch's random seed.

        config = LlamaConfig(hidden_size=512, num_hidden_layers=12, ...)
        model = mixln.from_config(config, placement="mix(0.25)")

    :param config: a stock config of a family that can be placed; `mixln families` lists them.
    :param placement: for example `pre`, `mix(0.25)`, `hybrid*`, `post*3,pre*9`, or a :class:`~mixln.placement.Placement`.
    :param init: for example `normal`, `megatron` or `scaled-embed+normal`; by default the one that the placement recommends.
    :param head: a head of the family, for example `causal-lm`, `masked-lm` or `sequence-classification`; by default its first, or
        none if it has none.
    :param stochastic_depth: see :func:`placed_config`.
    :param kwargs: passed to the `from_config` of the `Auto*` class, for example `attn_implementation` or `dtype`.
    :raises SettingsError: see :func:`placed_config`; also if the family has no such head.

    Known problems of the combination are issued as :class:`~mixln.errors.PlacementWarning`.
    """
    model = build(config, placement=placement, init=init, head=head, stochastic_depth=stochastic_depth, **kwargs)
    built = Placement.from_json(model.config.placement)
    known = risks(built, init=model.config.init, stock=family(config).stock)
    messages = [risk.message for risk in known]
    if built.profiled:
        messages.append(
            f"the gains of {built.name} are 1 until mixln.profile(model, batch) sets them; call it before training"
        )
    for warning in messages:
        warnings.warn(warning, PlacementWarning, stacklevel=2)
    return model


def build(
    config: PreTrainedConfig,
    *,
    placement: str | Placement,
    init: str | None,
    head: str | None = None,
    stochastic_depth: float | None = None,
    **kwargs: Any,
) -> PreTrainedModel:
    """:func:`from_config` without warnings, for callers that have already issued them."""
    placed = placed_config(config, placement, init, stochastic_depth=stochastic_depth)
    return _auto_class(family(config), head).from_config(placed, **kwargs)


def count_parameters(
    config: PreTrainedConfig, *, placement: str | Placement = "pre", init: str = "normal", head: str | None = None
) -> int:
    """Number of parameters of a placed model. The model is built on the meta device, so one that cannot be built fails here."""
    import torch

    with torch.device("meta"):
        model = build(config, placement=placement, init=init, head=head)
    return sum(parameter.numel() for parameter in model.parameters())


def from_pretrained(path: str | Path, *, head: str | None = None, **kwargs: Any) -> PreTrainedModel:
    """Loads a placed model. Strict: a missing or extra norm is an error that names it.

    :param path: a folder written by `save_pretrained`, or a hub id.
    :param head: see :func:`from_config`; by default the head that the checkpoint was saved with, or none.
    :param kwargs: passed to the `from_pretrained` of the `Auto*` class.
    :raises CheckpointError: if the weights do not fit the placement in the config, or the config has no placement.
    """
    refuse_pieces(path, (file.name for file in Path(path).glob("*.safetensors")))
    config = AutoConfig.from_pretrained(path, **{name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs})
    if not config.model_type.startswith("placed_"):
        raise CheckpointError(
            f"{path} is a stock {config.model_type!r} checkpoint without a placement; load it with transformers' "
            "AutoModelForCausalLM, or add a placement with mixln convert"
        )
    host = family(config)
    auto = saved_class(host, config) if head is None else _auto_class(host, head)
    if auto is None:
        raise CheckpointError(
            f"checkpoint {path} does not name its head (architectures: {config.architectures}); "
            f"choose one with head=, one of: {', '.join(host.heads)}"
        )
    return auto.from_pretrained(path, **kwargs)


def refuse_pieces(name: str | Path, files: Iterable[str]) -> None:
    """:raises CheckpointError: for the files of an unfinished FSDP training run, in which each process saves its shards of the weights."""
    if pieces := sum(file.startswith("shard-") for file in files):
        raise CheckpointError(
            f"model {name} is saved in {pieces} shards, one per process of a training run with --parallel fsdp; "
            "run its command to the end, which writes the whole model"
        )


def _auto_class(host: Host, head: str | None) -> Any:
    """The `Auto*` class of a head; by default the family's first, or that of the model without a head if the family has none."""
    if head is None and not host.heads:
        return AutoModel
    if head is not None and head not in host.heads:
        raise SettingsError(unknown(f"head of {host.model_type}", head, host.heads))
    return host.heads[head or next(iter(host.heads))][1]


def saved_class(host: Host, config: PreTrainedConfig) -> Any:
    """The `Auto*` class that a checkpoint was saved with, with or without a head; `None` if its config does not name it."""
    classes = {stock.__name__: auto for stock, auto in host.heads.values()} | {host.base.__name__: AutoModel}
    saved = (name.removeprefix("Placed") for name in config.architectures or ())
    return next((classes[name] for name in saved if name in classes), None)
