"""Low-rank adapters (LoRA, arXiv:2106.09685) on the right weights of any model, placed or stock."""

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
"""What families call the module that chooses experts."""


def targets(model: PreTrainedModel) -> list[str]:
    """The full names of every matrix within the layers: attention and feed-forward, before any norm on their outputs.

    With a norm on a projection, y = N(Wx), the adapter becomes part of W: y = N(Wx + BAx). Routers of experts, embeddings
    and heads are left as they are; so are experts that lie in one tensor.

    :raises SettingsError: if there is none.
    """
    within = {id(module) for layer in _layers(model) for module in layer.modules()}
    found = [
        name
        for name, module in model.named_modules()
        if id(module) in within and isinstance(module, nn.Linear | Conv1D) and not ROUTERS & set(name.split("."))
    ]
    if not found:
        raise SettingsError(f"a {model.config.model_type} has no matrix in its layers that LoRA could adapt")
    return found


def lora(
    model: PreTrainedModel, settings: PostTrainingSettings, *, task: str, head: str | None = None
) -> LoraConfig | None:
    """PEFT's config; `None` where all weights are trained.

    :param task: PEFT's name of the task, for example `CAUSAL_LM`.
    :param head: a head that is trained whole, because it is new.
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
    """Matrices of dense layers that PEFT would drop, and adapt all experts of the other layers in their place.

    It reads `gate_proj`, `up_proj` and `down_proj` of a family with experts as those of transformers 4, one for every
    expert. Adapted as parameters they are what they are.
    """
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    names = config.target_modules
    assert isinstance(names, set)
    converted = copy.deepcopy(config)
    convert_peft_config_for_transformers(converted, model, None)
    return sorted(names.difference(converted.target_modules or ()))


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    return list(placed_layers(model)) or list(find_stack(model).layers)
