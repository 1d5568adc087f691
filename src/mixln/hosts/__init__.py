"""The Hugging Face families that can be placed. Importing this registers their placed classes with the `Auto*` classes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from mixln.errors import CheckpointError, PlacementError, SettingsError, unknown
from mixln.hosts.family import Host
from mixln.hosts.llama import LLAMA
from mixln.nn.schemes import scheme
from mixln.placement import Placement
from mixln.placement import placement as build_placement

HOSTS: dict[str, Host] = {host.model_type: host for host in (LLAMA,)}
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
"""Arguments of `from_pretrained` that say where a checkpoint is; its config is there too."""


def placed_config(config: PreTrainedConfig, placement: str | Placement, init: str | None = None) -> PreTrainedConfig:
    """The config of the placed model that corresponds to a stock config.

    :param config: config of a known family, stock or already placed (its placement is then replaced).
    :param placement: for example `mix(0.25)`; see :func:`mixln.placement.placement`.
    :param init: name of the initialisation; the placement's recommended one if left out.
    :raises SettingsError: if the family or the init is unknown, the placement does not have the model's layers, or the
        heads do not divide. Groups that do not divide the hidden size are found when the model is built.
    """
    family = config.model_type.removeprefix("placed_")
    if family not in HOSTS:
        raise PlacementError(unknown("model family", config.model_type, HOSTS))
    if config.hidden_size % config.num_attention_heads:
        raise SettingsError(
            f"num_attention_heads must divide hidden_size, got {config.num_attention_heads} heads "
            f"for hidden_size {config.hidden_size}"
        )
    if config.num_attention_heads % config.num_key_value_heads:
        raise SettingsError(
            f"num_key_value_heads must divide num_attention_heads, got {config.num_key_value_heads} "
            f"for {config.num_attention_heads} heads"
        )
    built = build_placement(placement, config.num_hidden_layers)
    entries = copy.deepcopy(config.to_dict())
    for name in ("model_type", "placement", "init", "architectures", "transformers_version"):
        entries.pop(name, None)
    placed = AutoConfig.for_model(
        f"placed_{family}", **entries, placement=built.to_json(), init=scheme(init or built.init).name
    )
    placed._attn_implementation = config._attn_implementation
    return placed


def from_config(
    config: PreTrainedConfig, *, placement: str | Placement, init: str | None = None, **kwargs: Any
) -> PreTrainedModel:
    """A causal language model with the given normalization placement, initialised from torch's random seed.

        config = LlamaConfig(hidden_size=512, num_hidden_layers=12, ...)
        model = mixln.from_config(config, placement="mix(0.25)")

    :param config: a stock config of a known family (Llama).
    :param placement: for example `pre`, `mix(0.25)`, `hybrid*`, `post*3,pre*9`, or a :class:`~mixln.placement.Placement`.
    :param init: `normal`, `small`, `megatron`, `scaled` or `deepnorm`; the placement's recommended one if left out.
    :param kwargs: passed to `AutoModelForCausalLM.from_config`, for example `attn_implementation` or `dtype`.
    :raises SettingsError: see :func:`placed_config`.
    """
    return AutoModelForCausalLM.from_config(placed_config(config, placement, init), **kwargs)


def from_pretrained(path: str | Path, **kwargs: Any) -> PreTrainedModel:
    """Loads a placed causal language model; strict: a missing or an extra norm is an error that names it.

    :param path: a folder that `save_pretrained` wrote, or a hub id.
    :param kwargs: passed to `AutoModelForCausalLM.from_pretrained`.
    :raises CheckpointError: if the weights do not fit the placement in the config, or there is no placement.
    """
    config = AutoConfig.from_pretrained(path, **{name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs})
    if not config.model_type.startswith("placed_"):
        raise CheckpointError(
            f"{path} is a stock {config.model_type!r} checkpoint without a placement; load it with transformers' AutoModelForCausalLM"
        )
    return AutoModelForCausalLM.from_pretrained(path, **kwargs)
