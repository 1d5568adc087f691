"""Low-rank adapters (LoRA, arXiv:2106.09685) for placed and stock models."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mixln.diagnostics.stack import find_stack
from mixln.errors import SettingsError
from mixln.nn.residual import placed_layers
from mixln.training.settings import PostTrainingSettings

if TYPE_CHECKING:
    from peft import LoraConfig

ROUTERS = {"router", "gate"}
"""Names that model families use for the router of a mixture of experts."""


def targets(model: PreTrainedModel) -> list[str]:
    """The full names of all matrices in the attention and feed-forward of the layers.

    With a norm on a projection, y = N(Wx), the adapter acts before the norm: y = N(Wx + BAx). Routers, embeddings, heads, and experts
    stored in one tensor have no adapters.

    :raises SettingsError: if the layers have no such matrix.
    """
    within = {id(module) for layer in _layers(model) for module in layer.modules()}
    names = [
        name
        for name, module in model.named_modules()
        if id(module) in within and isinstance(module, nn.Linear | Conv1D) and not ROUTERS & set(name.split("."))
    ]
    if not names:
        raise SettingsError(
            f"lora needs linear layers to adapt, and the layers of a {model.config.model_type} have none; omit --lora"
        )
    return names


def lora(
    model: PreTrainedModel, settings: PostTrainingSettings, *, task: str, head: str | None = None
) -> LoraConfig | None:
    """PEFT's config; `None` if all weights are trained.

    :param task: PEFT's name of the task, for example `CAUSAL_LM`.
    :param head: a newly initialised head, all of whose weights are trained.
    """
    if settings.lora is None:
        return None
    from peft import LoraConfig

    config = LoraConfig(
        r=settings.lora,
        lora_alpha=settings.lora_alpha or 2 * settings.lora,
        target_modules=targets(model),
        modules_to_save=[head] if head else None,
        lora_dropout=0.0,
        task_type=task,
    )
    for name in _taken_for_experts(config, model):
        config.target_modules.remove(name)  # type: ignore[union-attr]
        config.target_parameters = [*(config.target_parameters or ()), f"{name}.weight"]
    return config


def _taken_for_experts(config: LoraConfig, model: PreTrainedModel) -> list[str]:
    """Matrices of dense layers that PEFT would mistake for experts, dropping them and adapting the experts of other layers instead.

    In a mixture-of-experts family, PEFT takes `gate_proj`, `up_proj` and `down_proj` for the names that transformers 4 gave to the
    matrices of single experts. Names under `target_parameters` are not converted.
    """
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    names = config.target_modules
    assert isinstance(names, set)
    converted = copy.deepcopy(config)
    convert_peft_config_for_transformers(converted, model, None)
    return sorted(names.difference(converted.target_modules or ()))


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    return list(placed_layers(model)) or list(find_stack(model).layers)
