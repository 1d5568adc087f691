"""The Hugging Face families that can be placed. Importing this registers their placed classes with the `Auto*` classes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from mixln.errors import CheckpointError, PlacementError, PlacementWarning, SettingsError, unknown
from mixln.hosts.families import HOSTS
from mixln.hosts.family import Host, check_shape
from mixln.nn.schemes import scheme
from mixln.placement import Placement
from mixln.placement import placement as build_placement
from mixln.placement.preflight import warnings as preflight

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
"""Arguments of `from_pretrained` that say where a checkpoint is; its config is there too."""


def family(config: PreTrainedConfig) -> Host:
    """The host record of a config, stock or placed.

    :raises SettingsError: if the family is not described; the message says how to describe one.
    """
    if not isinstance(config, PreTrainedConfig):
        raise SettingsError(
            f"config must be a config of transformers, got {config!r}; for a folder, AutoConfig.from_pretrained"
        )
    name = config.model_type.removeprefix("placed_")
    if name not in HOSTS:
        raise PlacementError(
            f"{unknown('model family', name, HOSTS)}; CONTRIBUTING.md says how to add a host family in three steps"
        )
    return HOSTS[name]


def placement_for(config: PreTrainedConfig, placement: str | Placement) -> Placement:
    """The placement that a text names for the family and the depth of a config.

    :raises SettingsError: as :func:`mixln.placement.placement` does; also if the family is unknown.
    """
    host = family(config)
    return build_placement(placement, config.num_hidden_layers, stock=host.stock, stock_init=host.stock_init)


def placed_config(
    config: PreTrainedConfig,
    placement: str | Placement,
    init: str | None = None,
    *,
    stochastic_depth: float | None = None,
) -> PreTrainedConfig:
    """The config of the placed model that corresponds to a stock config.

    :param config: config of a known family, stock or already placed (its placement is then replaced).
    :param placement: for example `mix(0.25)`; see :func:`mixln.placement.placement`. Norms that the family itself puts on
        q and k stay where a text does not set its own; a :class:`~mixln.placement.Placement` is taken as it is.
    :param init: name of the initialisation; the placement's recommended one if left out.
    :param stochastic_depth: probability with which a branch of the last layer is left out for a sample while training; it rises
        in equal steps from 0 in the first layer. Left out, that of a config already placed, or 0.
    :raises SettingsError: if the family or the init is unknown, the placement does not have the model's layers, the host
        cannot carry it, or the heads do not divide. What does not fit a projection is found when the model is built.
        Also if `stochastic_depth` does not lie in [0, 1).
    """
    host = family(config)
    check_shape(config)
    built = placement_for(config, placement)
    if reason := host.cannot(config, built):
        raise PlacementError(f"this {host.model_type} cannot be placed: {reason}")
    started = scheme(init or built.init).name
    if "+" in started and "embedding" not in host.roles.values():
        raise SettingsError(
            f"init {started}: a {host.model_type} has no token embeddings to start differently; leave out the part before the +"
        )
    depth = getattr(config, "stochastic_depth", 0.0) if stochastic_depth is None else stochastic_depth
    if not 0 <= depth < 1:
        raise SettingsError(f"stochastic-depth must lie in [0, 1), got {depth}")
    entries = stock_entries(config) | {"placement": built.to_json(), "init": started, "stochastic_depth": depth}
    placed = AutoConfig.for_model(f"placed_{host.model_type}", **entries)
    placed._attn_implementation = config._attn_implementation
    placed._experts_implementation = config._experts_implementation
    return placed


def stock_entries(config: PreTrainedConfig) -> dict[str, Any]:
    """The entries of a config, stock or placed, that say nothing of its placement and are not made anew when it is saved."""
    entries = copy.deepcopy(config.to_dict())
    for name in ("model_type", "placement", "init", "stochastic_depth", "architectures", "transformers_version"):
        entries.pop(name, None)
    return entries


def from_config(
    config: PreTrainedConfig,
    *,
    placement: str | Placement,
    init: str | None = None,
    head: str | None = None,
    stochastic_depth: float | None = None,
    **kwargs: Any,
) -> PreTrainedModel:
    """A model with the given normalization placement, initialised from torch's random seed.

        config = LlamaConfig(hidden_size=512, num_hidden_layers=12, ...)
        model = mixln.from_config(config, placement="mix(0.25)")

    :param config: a stock config of a known family: `sorted(mixln.hosts.HOSTS)` lists them.
    :param placement: for example `pre`, `mix(0.25)`, `hybrid*`, `post*3,pre*9`, or a :class:`~mixln.placement.Placement`.
    :param init: for example `normal`, `megatron` or `scaled-embed+normal`; the placement's recommended one if left out.
    :param head: `causal-lm`, `sequence-classification` or `image-classification`; the family's first if left out.
    :param stochastic_depth: see :func:`placed_config`.
    :param kwargs: passed to the `from_config` of the `Auto*` class, for example `attn_implementation` or `dtype`.
    :raises SettingsError: see :func:`placed_config`; also if the family has no such head.

    What is known against the combination is warned of as :class:`~mixln.errors.PlacementWarning`.
    """
    model = build(config, placement=placement, init=init, head=head, stochastic_depth=stochastic_depth, **kwargs)
    built = Placement.from_json(model.config.placement)
    found = preflight(built, init=model.config.init)
    if built.profiled:
        found.append(
            f"the gains of {built.name} stay 1 until mixln.profile(model, batch) has set them; call it before training"
        )
    for warning in found:
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
    """:func:`from_config` without its warnings, for callers that have given them already."""
    made = placed_config(config, placement, init, stochastic_depth=stochastic_depth)
    return _auto_class(family(config), head).from_config(made, **kwargs)


def count_parameters(
    config: PreTrainedConfig, *, placement: str | Placement = "pre", init: str = "normal", head: str | None = None
) -> int:
    """Parameters of a placed model, which is built without memory: what cannot be built shows."""
    import torch

    with torch.device("meta"):
        model = build(config, placement=placement, init=init, head=head)
    return sum(parameter.numel() for parameter in model.parameters())


def from_pretrained(path: str | Path, *, head: str | None = None, **kwargs: Any) -> PreTrainedModel:
    """Loads a placed model; strict: a missing or an extra norm is an error that names it.

    :param path: a folder that `save_pretrained` wrote, or a hub id.
    :param head: as in :func:`from_config`; the one that the checkpoint was saved with, or none, if left out.
    :param kwargs: passed to the `from_pretrained` of the `Auto*` class.
    :raises CheckpointError: if the weights do not fit the placement in the config, or there is no placement.
    """
    refuse_pieces(path, (file.name for file in Path(path).glob("*.safetensors")))
    config = AutoConfig.from_pretrained(path, **{name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs})
    if not config.model_type.startswith("placed_"):
        raise CheckpointError(
            f"{path} is a stock {config.model_type!r} checkpoint without a placement; load it with transformers' "
            "AutoModelForCausalLM, or give it one with mixln convert"
        )
    host = family(config)
    auto = saved_class(host, config) if head is None else _auto_class(host, head)
    if auto is None:
        raise CheckpointError(
            f"checkpoint {path} does not say which head it has (architectures: {config.architectures}); "
            f"name one with head=, of: {', '.join(host.heads)}"
        )
    return auto.from_pretrained(path, **kwargs)


def refuse_pieces(name: str | Path, files: Iterable[str]) -> None:
    """:raises CheckpointError: if these are the files of a training that goes on, where each process has written its share of a weight."""
    if pieces := sum(file.startswith("shard-") for file in files):
        raise CheckpointError(
            f"model {name} is saved in {pieces} pieces, one of each process of a training with --parallel fsdp; "
            "run its command to the end, which writes it whole"
        )


def _auto_class(host: Host, head: str | None) -> Any:
    """The `Auto*` class for a head; the family's first if none is asked for."""
    if head is not None and head not in host.heads:
        raise SettingsError(unknown(f"head of {host.model_type}", head, host.heads))
    return host.heads[head or next(iter(host.heads))][1]


def saved_class(host: Host, config: PreTrainedConfig) -> Any:
    """The `Auto*` class of the head that a checkpoint was saved with, or of the model without one; `None` if its config does not tell."""
    classes = {stock.__name__: auto for stock, auto in host.heads.values()} | {host.base.__name__: host.auto_base}
    saved = (name.removeprefix("Placed") for name in config.architectures or ())
    return next((classes[name] for name in saved if name in classes), None)
